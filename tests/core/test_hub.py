"""The door to the hub: a download ends whatever comes, and nothing from outside becomes a path unchecked."""

import json
import shutil
from collections import namedtuple

import hub
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import _detect_agent

from storyforge.core import cache
from storyforge.core import hub as door
from storyforge.core.assets import content, files, snapshot
from storyforge.core.cache import cache_dir
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin

pytestmark = pytest.mark.usefixtures("waits")
ROWS = bytes(range(256)) * 2000  # 512,000 bytes
NAME = "data/rows.bin"


@pytest.fixture
def served(monkeypatch):
    with hub.Hub({NAME: ROWS, "config.json": b"{}"}).running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def origin(stand_in):
    return Origin.parse(stand_in.origin)


def fetch(stand_in):
    return files(origin(stand_in), [NAME])[NAME]


def ranges(stand_in):
    return [headers.get("range") for _, headers in stand_in.requests]


def part():
    return next(iter((cache_dir() / "parts").glob("blobs--*")), None)


# --- a download ends


def test_a_part_for_which_there_is_no_range_is_dropped(served):
    served.faults = [hub.cut(200_000), hub.status(416)]
    assert fetch(served).read_bytes() == ROWS
    assert ranges(served) == [None, "bytes=200000-", None]


def test_no_range_at_all_is_given_up(served):
    served.faults = [hub.cut(200_000)] + [hub.status(416)] * 50
    with pytest.raises(UserError, match=r"cannot be asked \(HTTP 416\)"):
        fetch(served)
    assert part() is None


def from_the_start(about: str | None):
    """A fault: part of a file is said to come, and all of it does."""
    headers = {"Content-Range": about} if about else {}
    return lambda _, request, body: hub.send(request, body, headers, status=206)


@pytest.mark.parametrize("about", ["bytes 0-511999/512000", "bytes 2000-511999/512000", None])
def test_an_answer_that_ignores_the_range_drops_the_part(served, about):
    served.faults = [hub.cut(200_000), from_the_start(about)]
    assert fetch(served).read_bytes() == ROWS
    assert ranges(served) == [None, "bytes=200000-", None]


def test_a_server_that_never_heeds_the_range_leaves_no_part_to_be_stuck_on(served):
    """And always breaks off, so that no attempt brings all of the file."""
    about = {"Content-Range": "bytes 0-511999/512000"}
    served.faults = [lambda _, request, body: hub.send(request, body, about, status=206, stop=200_000)] * 50
    with pytest.raises(UserError, match="was expected and .* came, twice|more came than the 512,000 bytes"):
        fetch(served)
    assert part() is None


def drip(stand_in, request, body):
    """A fault: a byte now and then, for ever."""
    try:
        hub.send(request, body, stop=0)
        while not stand_in.closing.wait(0.02):
            request.wfile.write(b"x")
            request.wfile.flush()
    except OSError:
        pass


def test_an_endless_drip_is_given_up(served, monkeypatch):
    monkeypatch.setattr(door, "TIMEOUT_S", 0.2)
    served.faults = [drip] * 50
    with pytest.raises(UserError, match=rf"{NAME}: .*cannot be asked \(\d+ bytes in \d s\)"):
        fetch(served)
    assert len(served.requests) == 1 + len(door.WAITS_S)
    served.faults = [drip]
    assert fetch(served).read_bytes() == ROWS


def one_byte(stand_in, request, body):
    """A fault: an answer that is complete, and one byte long."""
    start = int((request.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
    hub.send(request, body[start : start + 1], {"Content-Range": f"bytes {start}-{start}/512000"}, status=206)


@pytest.mark.parametrize("fault", [hub.cut(1), one_byte], ids=["cut short", "complete"])
def test_a_byte_an_attempt_is_no_progress(served, fault):
    served.faults = [fault] * 2000
    with pytest.raises(UserError, match="cannot be asked"):
        fetch(served)
    assert len(served.requests) <= 6 * (1 + len(door.WAITS_S))  # the client repeats a cut one by itself


def test_a_list_of_files_without_end_is_refused(served, monkeypatch):
    def endless(*_, **__):
        entry = namedtuple("Entry", "path blob_id size lfs")
        while True:
            yield entry("x", "a" * 40, 1, None)

    monkeypatch.setattr(HfApi, "list_repo_tree", endless)
    monkeypatch.setattr(door, "MOST_FILES", 50)
    with pytest.raises(UserError, match="more than 50 files"):
        fetch(served)


def test_a_file_too_large_for_the_client_is_one_line(served, monkeypatch):
    monkeypatch.setattr(constants, "MAX_HTTP_DOWNLOAD_SIZE", 1000)
    with pytest.raises(UserError, match=f"{NAME}: 512,000 bytes: over 50 GB"):
        fetch(served)
    assert served.requests == []


def test_a_damaged_file_that_will_be_replaced_needs_room(served, monkeypatch):
    path = fetch(served)
    path.chmod(0o644)
    path.write_bytes(ROWS[:-1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 400_000))
    with pytest.raises(UserError, match="512,000 bytes are needed and 400,000 are free"):
        fetch(served)


# --- what comes from outside


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"x": ["../../../.bashrc", 5]}, "is no digest"),
        ({"x": ["A" * 40, 5]}, "is no digest"),
        ({"x": ["a" * 40, "5"]}, "no size"),
        ({"x": ["a" * 40, -5]}, "no size"),
        ({"../../../.bashrc": ["a" * 40, 5]}, "leads out"),
        ({"x": 5}, "is no list of files: remove it"),
        (["x"], "is no list of files: remove it"),
    ],
)
def test_a_list_in_the_cache_is_checked_as_one_from_the_hub(served, tmp_path, found, why):
    """The cache may have been another's, its records with it."""
    fetch(served)
    (kept,) = (cache_dir() / "lists").iterdir()
    kept.chmod(0o644)
    kept.write_text(json.dumps(found))
    cache._write_record(kept, cache.digest(kept))
    (tmp_path / ".bashrc").write_text("mine")
    with pytest.raises(UserError, match=why) as caught:
        files(origin(served), ["*"])
    assert "\n" not in str(caught.value)
    assert (tmp_path / ".bashrc").read_text() == "mine"


def test_other_libraries_ask_the_hub_through_the_same_door(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with pytest.raises(UserError, match="http://hub.example/.*: only https is trusted"):
        HfApi(endpoint="http://hub.example").model_info("owner/name")


def test_access_is_asked_for_through_the_door(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    repository = Origin.parse(f"hub:owner/name@{'a' * 40}")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(UserError, match="http://hub.example/.*: only https is trusted"):
        door.require_access(repository)
    with hub.Hub({NAME: ROWS}, name="owner/name", token="mine").running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        with pytest.raises(UserError, match="access is refused"):
            door.require_access(repository)
        assert stand_in.authorizations == ["Bearer secret"]


def test_a_hub_that_answers_the_clients_own_questions_wrongly_is_one_line(served, monkeypatch):
    """Before each request the client asks for a list of programs, of which it takes the keys."""
    monkeypatch.setattr(_detect_agent, "_registry", ["a list"])
    with pytest.raises(UserError, match="none of a hub .*AttributeError.*: check HF_ENDPOINT") as caught:
        fetch(served)
    assert "\n" not in str(caught.value)


# --- pinned content


def test_the_same_commit_with_other_content_is_refused(served, monkeypatch):
    pin = content(origin(served), ["*"])
    assert snapshot(origin(served), ["*"], pin).is_dir()
    with hub.Hub({NAME: ROWS[::-1], "config.json": b"{}"}).running() as mirror:
        monkeypatch.setenv("HF_ENDPOINT", mirror.url)
        assert snapshot(origin(mirror), ["*"], pin).is_dir()  # from the cache
        shutil.rmtree(cache_dir())
        with pytest.raises(UserError, match=f"sha256 {pin} is pinned and its content has"):
            snapshot(origin(mirror), ["*"], pin)
        assert mirror.requests == []  # known from the list


def test_a_folder_has_the_content_of_its_files_that_count(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "model.safetensors").write_bytes(b"w")
    (tmp_path / "deep" / "config.json").write_bytes(b"{}")
    mine, patterns = Origin.parse(f"folder:{tmp_path}"), ["*.safetensors", "*.json"]
    pin = content(mine, patterns)
    (tmp_path / "notes.txt").write_bytes(b"?")
    assert snapshot(mine, patterns, pin) == tmp_path
    (tmp_path / "model.safetensors").write_bytes(b"v")
    with pytest.raises(UserError, match="is pinned and its content has"):
        snapshot(mine, patterns, pin)
    assert snapshot(mine, patterns) == tmp_path
