import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pipeline import Repository
from ruamel.yaml import YAML

from storyforge.commands.repository import output
from storyforge.commands.verify import cache_dir, verify
from storyforge.core.errors import UserError

CACHE = Path(".dvc/cache")


@pytest.fixture(autouse=True)
def damaged(monkeypatch):
    """What the cache of fetched files says of itself; tests append to it."""
    found = []
    monkeypatch.setattr("storyforge.core.cache.damaged", lambda: iter(found), raising=False)
    return found


def test_a_damaged_fetched_file_is_named(copy, damaged, storyforge):
    damaged.append((Path("/cache/blobs/abc"), "its digest was 1 and is 2"))
    said = storyforge("verify", status=1).stdout
    assert said.startswith(
        "/cache/blobs/abc: its digest was 1 and is 2: rm -f /cache/blobs/abc\n1 not as recorded"
    )


def cached() -> list[Path]:
    return sorted(file for file in (CACHE / "files").rglob("*") if file.is_file())


def flip(file: Path) -> None:
    """One bit, with the mode and the dates as they were: DVC's own signs of an untouched file."""
    before, data = file.stat(), bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    file.chmod(before.st_mode)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def mend(ran: Repository) -> list[str]:
    """Every remedy, from the top; what they printed."""
    options = {"env": ran.env, "check": True, "capture_output": True, "text": True}
    return [subprocess.run(["sh", "-c", fault.remedy], **options).stdout for fault in verify(CACHE).faults]


def test_an_untouched_clone_has_no_fault(copy):
    assert cache_dir() == CACHE
    found = verify(CACHE)
    assert found.faults == []
    assert found.files == 2 * 102 + 1  # outputs and cache; the folder's list is in the cache alone


def test_every_corrupt_cache_file_is_found(copy):
    """F9: all of them, one at a time and all at once."""
    files = cached()
    assert len(files) == 103 and {file.stat().st_mode & 0o777 for file in files} == {0o444}
    for file in files:
        flip(file)
        assert {fault.path for fault in verify(CACHE).faults} == {file}
        flip(file)
    blobs = [file for file in files if file.suffix != ".dir"]
    for file in blobs:
        flip(file)
    assert {fault.path for fault in verify(CACHE).faults} == set(blobs)


def test_dvc_does_not_notice_what_verify_does(copy, ran):
    repository = Repository(copy, ran.env)
    assert "up to date" in repository.dvc("status")  # and it takes down the dates
    flip(copy / "single.bin")
    flip(next(file for file in cached() if file.stat().st_size == 3000))
    assert "up to date" in repository.dvc("status")
    assert len(verify(CACHE).faults) == 2


def test_wrong_missing_and_foreign_outputs_are_named(copy):
    flip(copy / "folder" / "0.txt")
    (copy / "folder" / "deep" / "1.txt").unlink()
    (copy / "folder" / "new.txt").write_text("?")
    (copy / "folder" / ".DS_Store").write_text("?")  # .dvcignore lets it be
    (copy / "number.json").write_text("{ }")
    assert {(str(fault.path), fault.what) for fault in verify(CACHE).faults} == {
        ("folder/0.txt", "wrong"),
        ("folder/deep/1.txt", "missing"),
        ("folder/new.txt", "not in dvc.lock"),
        ("number.json", "wrong"),
    }


def test_every_remedy_but_a_new_run_mends(copy, ran):
    """Each in its own clone would be slow: faults that do not touch each other, all mended as told."""
    flip(copy / "folder" / "0.txt")
    (copy / "folder" / "deep" / "1.txt").unlink()
    (copy / "folder" / "new.txt").write_text("?")
    (copy / "number.json").write_text("{ }")
    md5 = hashlib.md5((copy / "folder" / "2.txt").read_bytes()).hexdigest()
    flip(copy / ".dvc/cache/files/md5" / md5[:2] / md5[2:])
    assert len(mend(ran)) == 5
    assert verify(CACHE).faults == []


def test_a_corrupt_list_is_written_again_from_the_folder_itself(copy, ran):
    """Nothing is run again for it: what a long training made is still there."""
    flip(next(file for file in cached() if file.suffix == ".dir"))
    (printed,) = mend(ran)
    assert "Running stage" not in printed
    assert verify(CACHE).faults == []


@pytest.mark.parametrize("name", ["folder/2.txt", "single.bin"])
def test_a_file_and_its_object_both_corrupt_are_made_again(copy, ran, name):
    """The object goes first: a checkout would bring it back, corrupt as it is."""
    md5 = hashlib.md5((copy / name).read_bytes()).hexdigest()
    flip(CACHE / "files/md5" / md5[:2] / md5[2:])
    flip(copy / name)
    mend(ran)
    assert verify(CACHE).faults == []


def test_a_lost_object_is_copied_from_its_output(copy, ran):
    """Its folder in the cache is lost with it."""
    md5 = hashlib.md5((copy / "single.bin").read_bytes()).hexdigest()
    shutil.rmtree(CACHE / "files/md5" / md5[:2])
    faults = verify(CACHE).faults
    assert (CACHE / "files/md5" / md5[:2] / md5[2:]) in {fault.path for fault in faults}
    assert "".join(mend(ran)) == ""  # no stage ran
    assert verify(CACHE).faults == []


def test_a_folder_in_the_place_of_a_file_is_replaced(copy, ran):
    (copy / "single.bin").unlink()
    (copy / "single.bin").mkdir()
    (copy / "single.bin/new.txt").write_text("?")
    assert [(str(fault.path), fault.what) for fault in verify(CACHE).faults] == [("single.bin", "wrong")]
    mend(ran)
    assert verify(CACHE).faults == []


def test_where_cache_and_output_are_lost_the_stage_runs_again(copy, ran):
    """The list of a folder is lost, so nothing can be checked out."""
    listed = next(file for file in cached() if file.suffix == ".dir")
    flip(listed)
    flip(copy / "folder" / "0.txt")
    faults = verify(CACHE).faults
    assert [fault.path for fault in faults] == [listed, Path("folder")]
    mend(ran)
    left = [fault.remedy for fault in verify(CACHE).faults]  # DVC may know the list by heart
    assert left in ([], ["dvc commit make"])
    mend(ran)
    assert verify(CACHE).faults == []


def test_a_clone_without_its_cache_is_told_in_few_lines(copy, storyforge):
    shutil.rmtree(copy / ".dvc" / "cache")
    (copy / "single.bin").unlink()
    said = storyforge("verify", status=1).stdout.splitlines()
    assert [line.split(":")[0] for line in said if ".dvc" not in line][:-1] == ["single.bin"]
    assert len(said) == 4 and said[-1].startswith("3 not as recorded")


def test_a_clone_that_was_not_built_is_one_line(copy, storyforge):
    shutil.rmtree(copy / ".dvc" / "cache")
    shutil.rmtree(copy / "folder")
    (copy / "single.bin").unlink()
    said = storyforge("verify", status=1).stderr
    assert said == "error: no data of dvc.lock is in this clone: run `dvc repro`\n"


def test_the_command_says_how_much_it_has_read(copy, storyforge):
    assert storyforge("verify").stdout.startswith("205 files, ")


def test_without_a_run_there_is_nothing_to_verify(copy, storyforge):
    (copy / "dvc.lock").unlink()
    said = storyforge("verify", status=1).stderr
    assert said == "error: dvc.lock: no run has been recorded: run `dvc repro`\n"


@pytest.mark.parametrize("text", ["", "stages:", "schema: '2.0'\nstages:\n  make:\n    cmd: [", "- a"])
def test_a_broken_lock_file_is_one_line(copy, storyforge, text):
    (copy / "dvc.lock").write_text(text)
    assert storyforge("verify", status=1).stderr.count("\n") == 1


def test_the_lock_names_what_is_hashed(copy):
    """Another hash in dvc.lock, another verdict: nothing but its hashes decides."""
    lock = YAML(typ="safe").load(copy / "dvc.lock")
    out = next(out for out in lock["stages"]["make"]["outs"] if out["path"] == "single.bin")
    out["md5"] = hashlib.md5(b"other").hexdigest()
    YAML(typ="safe").dump(lock, copy / "dvc.lock")
    assert [fault.what for fault in verify(CACHE).faults] == ["single.bin: missing in the cache", "wrong"]
    assert json.loads((copy / "number.json").read_bytes()) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [("path", "../outside"), ("path", "/etc/hosts"), ("md5", "../../../x"), ("md5", "A" * 32)],
)
def test_a_lock_file_that_leads_out_of_the_clone_is_one_line(copy, storyforge, key, value):
    lock = YAML(typ="safe").load(copy / "dvc.lock")
    next(out for out in lock["stages"]["make"]["outs"] if out["path"] == "single.bin")[key] = value
    YAML(typ="safe").dump(lock, copy / "dvc.lock")
    said = storyforge("verify", status=1).stderr
    assert said.startswith("error: dvc.lock: ") and repr(value) in said and said.count("\n") == 1


def test_a_list_that_leads_out_of_its_folder_is_one_line(copy, storyforge):
    """What somebody who may write to a remote can make of it; the lock file names that list."""
    listed = next(file for file in cached() if file.suffix == ".dir")
    rows = json.dumps([{"md5": "a" * 32, "relpath": "../../src/sitecustomize.py"}], sort_keys=True).encode()
    md5 = hashlib.md5(rows).hexdigest()
    hostile = CACHE / "files/md5" / md5[:2] / f"{md5[2:]}.dir"
    hostile.parent.mkdir(exist_ok=True)
    hostile.write_bytes(rows)
    lock = (copy / "dvc.lock").read_text()
    (copy / "dvc.lock").write_text(lock.replace(f"{listed.parent.name}{listed.name}", f"{md5}.dir"))
    said = storyforge("verify", status=1).stderr
    assert "the list of folder: '../../src/sitecustomize.py' leads out" in said and said.count("\n") == 1


def test_no_remedy_deletes_an_output(copy):
    """DVC replaces it itself: a folder with a person's own files in it would go with it."""
    flip(copy / "folder" / "0.txt")
    flip(copy / "single.bin")
    (copy / "folder" / "deep" / "1.txt").unlink()
    remedies = [fault.remedy for fault in verify(CACHE).faults]
    pairs = [("folder/0.txt", "folder"), ("folder/deep/1.txt", "folder"), ("single.bin", "single.bin")]
    assert remedies == [f"touch -c {path} && dvc checkout --force {out}" for path, out in pairs]


def test_a_clone_without_git_is_verified(copy, storyforge):
    """The repository came as a ZIP."""
    shutil.rmtree(copy / ".git")
    assert storyforge("verify").stdout.startswith("205 files, ")


def test_a_command_that_fails_is_quoted_with_its_error_not_its_last_line():
    """As DVC ends: an error, then an invitation to ask for support."""
    script = "import sys; sys.exit('ERROR: no home\\n\\nHaving any troubles?')"
    with pytest.raises(UserError, match="`: ERROR: no home$"):
        output(sys.executable, "-c", script)
