"""The cache serves what is whole, whoever owns it, and says in one line why it cannot be written."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hub
import pytest

from storyforge.core import cache
from storyforge.core.assets import snapshot
from storyforge.core.cache import damaged, obtained, place
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin

STRANGER = 4242  # a user id that owns nothing here


def fill(part: Path) -> None:
    part.mkdir()
    (part / "weights").write_bytes(b"w" * 1000)
    (part / "config").write_bytes(b"c")


def never(part: Path) -> None:
    raise AssertionError("made again")


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def of_another(monkeypatch):
    """A complete cache of root's, seen by a user who may only read it."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    folder.chmod(0o755)
    hub.isolate(monkeypatch, folder / "cache")
    obtained(place("converted", "base"), fill)
    os.seteuid(STRANGER)
    yield folder / "cache"
    os.seteuid(0)
    shutil.rmtree(folder)


def test_a_complete_cache_of_another_user_serves(of_another):
    assert (obtained(place("converted", "base"), never) / "config").read_bytes() == b"c"


def test_a_hub_model_in_the_cache_of_another_needs_no_network(of_another, monkeypatch):
    os.seteuid(0)
    with hub.Hub({"deep/model.safetensors": b"w" * 1000, "config.json": b"{}"}).running() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        origin = Origin.parse(stand_in.origin)
        snapshot(origin, ["*"])
    os.seteuid(STRANGER)
    assert (snapshot(origin, ["*"]) / "deep" / "model.safetensors").read_bytes() == b"w" * 1000


def test_what_its_records_do_not_vouch_for_is_hashed_each_time(of_another):
    """The cache was copied, which changed the dates, and the records cannot be written again."""
    os.seteuid(0)
    for file in (of_another / "converted" / "base").iterdir():
        os.utime(file, (1, 1))
    os.seteuid(STRANGER)
    assert obtained(place("converted", "base"), never)
    assert list(damaged()) == []


def test_damage_in_the_cache_of_another_is_named(of_another):
    os.seteuid(0)
    (of_another / "converted" / "base" / "config").write_bytes(b"d")
    (of_another / "converted" / "base" / "weights").chmod(0)
    os.seteuid(STRANGER)
    (config, changed), (weights, closed) = damaged()
    assert (config.name, weights.name) == ("config", "weights")
    assert "its digest was" in changed and closed == "cannot be read: Permission denied"


def test_what_is_missing_in_the_cache_of_another_is_one_line(of_another):
    with pytest.raises(UserError, match="Permission denied: set STORYFORGE_CACHE to a folder you may write"):
        obtained(place("converted", "other"), fill)


def test_a_search_of_changed_files_hashes_no_other(root, monkeypatch):
    base = obtained(place("converted", "base"), fill)
    hashed, real = [], cache.digest
    monkeypatch.setattr(cache, "digest", lambda path, like: hashed.append(path.name) or real(path, like))
    assert list(damaged(changed_only=True)) == [] == hashed
    (base / "config").chmod(0o644)
    (base / "config").write_bytes(b"d")
    assert [path.name for path, _ in damaged(changed_only=True)] == ["config"] == hashed


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["the system's", "a library's own"],
)
def test_a_full_disk_is_one_line_whatever_error_it_came_as(root, error):
    def make(part):
        part.mkdir()
        (part / "half").write_bytes(b"h")
        raise error

    with pytest.raises(UserError, match="cache: No space left on device: make room") as caught:
        obtained(place("converted", "base"), make)
    assert "\n" not in str(caught.value)
    assert list((root / "parts").iterdir()) == [] == list((root / "converted").iterdir())


def test_an_error_that_is_not_the_disks_is_not_hidden(root):
    def make(part):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        obtained(place("converted", "base"), make)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a\0b"])
def test_no_name_leads_out_of_the_cache(root, name):
    with pytest.raises(UserError, match="leads out of"):
        place("blobs", name)


def test_without_a_home_folder_one_line_asks_for_a_cache(monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "STORYFORGE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match="^no home folder: set STORYFORGE_CACHE to a folder"):
        place("blobs")


ONE_NUMBER = """
import os, sys, time
os.getpid = lambda: 1
from storyforge.core.cache import obtained, place
def make(part):
    part.mkdir()
    print("made", flush=True)
    time.sleep(0.5)
    (part / "file").write_bytes(b"f" * 100_000)
print(len((obtained(place("converted", "base"), make) / "file").read_bytes()), flush=True)
"""


def test_two_containers_whose_processes_have_one_number_share_a_cache(root):
    env = {**os.environ, "PYTHONPATH": "src"}
    command, pipe = [sys.executable, "-c", ONE_NUMBER], subprocess.PIPE
    pair = [subprocess.Popen(command, env=env, stdout=pipe, text=True) for _ in range(2)]
    assert sorted(each.communicate()[0] for each in pair) == ["100000\n", "made\n100000\n"]
