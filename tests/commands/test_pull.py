"""A remote that others can write to: what was tampered with is refused before anything of it is written."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline import Repository

CACHE = Path(".dvc/cache/files/md5")
FORGED = b"import os; os.abort()"


@pytest.fixture(scope="module")
def pushed(ran, tmp_path_factory) -> Path:
    """A clone that has nothing yet, beside the remote that has everything."""
    top = tmp_path_factory.mktemp("pushed")
    here = Repository(Path(shutil.copytree(ran.root, top / "copy", symlinks=True)), ran.env)
    here.dvc("remote", "add", "--default", "store", "../store")
    here.dvc("push")
    forget(here.root)
    return top


@pytest.fixture
def copy(pushed, ran, tmp_path, monkeypatch) -> Path:
    shutil.copytree(pushed, tmp_path, symlinks=True, dirs_exist_ok=True)
    for name, value in ran.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def store(copy) -> Path:
    return copy.parent / "store" / "files" / "md5"


def forget(copy: Path) -> None:
    for folder in (".dvc/cache", ".dvc/tmp", "folder"):
        shutil.rmtree(copy / folder, ignore_errors=True)
    (copy / "single.bin").unlink(missing_ok=True)


def replace(file: Path, content: bytes) -> None:
    """As another user of the remote would, with the mode by which DVC trusts an object."""
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(0o444)


def listing(store: Path) -> Path:
    (found,) = store.rglob("*.dir")
    return found


def add_row(store: Path, name: str, md5: str | None = None) -> None:
    md5 = md5 or hashlib.md5(FORGED).hexdigest()
    (store / md5[:2]).mkdir(exist_ok=True)
    if len(md5) == 32:
        (store / md5[:2] / md5[2:]).write_bytes(FORGED)
    rows = json.loads(listing(store).read_bytes())
    replace(listing(store), json.dumps([*rows, {"md5": md5, "relpath": name}]).encode())


def record_listing(copy: Path, store: Path) -> None:
    """As whoever may change dvc.lock too: the hash of the list of files is right."""
    old, md5 = listing(store), hashlib.md5(listing(store).read_bytes()).hexdigest()
    (store / md5[:2]).mkdir(exist_ok=True)
    old.rename(store / md5[:2] / f"{md5[2:]}.dir")
    lock = copy / "dvc.lock"
    lock.write_text(lock.read_text().replace(old.parent.name + old.name, f"{md5}.dir"))


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if ".git" not in path.parts}


def test_what_was_pushed_comes_back(copy, store, storyforge):
    said = storyforge("pull").stdout
    assert said == "verified and checked out: single.bin, folder\n"
    assert storyforge("verify").stdout.startswith("204 files, ")
    assert {path.stat().st_mode & 0o777 for path in CACHE.rglob("*") if path.is_file()} == {0o444}
    assert not Path(".dvc/tmp/pull").exists()


def test_one_output_is_pulled_by_its_path(copy, store, storyforge, monkeypatch):
    (copy / "below").mkdir()
    monkeypatch.chdir(copy / "below")
    assert storyforge("pull", "../single.bin").stdout == "verified and checked out: single.bin\n"
    monkeypatch.chdir(copy)
    assert not (copy / "folder").exists()
    said = storyforge("pull", "sinlge.bin", status=1).stderr
    assert said.endswith("sinlge.bin: no recorded output: choose of single.bin, folder\n")


def test_changed_bytes_are_refused_and_nothing_is_written(copy, store, storyforge):
    in_folder = next(
        file for file in sorted(store.rglob("*")) if file.is_file() and file.stat().st_size < 1000
    )
    for file in (listing(store), in_folder, next(f for f in store.rglob("*") if f.stat().st_size == 3000)):
        before = file.read_bytes()
        for content in (before[:-1] + b"?", before[:-1], b"", before + b" "):
            replace(file, content)
            said = storyforge("pull", status=1).stderr
            assert said.startswith("error: remote store: ") and said.count("\n") == 1
            assert f"has other bytes than were recorded: nothing was checked out: delete {file}" in said
            assert not {Path("folder"), Path("single.bin")} & set(Path().iterdir())
            assert not any(file.name in path.name for path in files(copy))
        replace(file, before)
        forget(copy)


def test_a_list_that_the_remote_changed_is_refused(copy, store, storyforge):
    add_row(store, "../evil.py")
    assert "folder has other bytes than were recorded" in storyforge("pull", status=1).stderr
    assert not (copy / "evil.py").exists()


def test_a_path_outside_its_folder_is_refused_though_its_hash_is_right(copy, store, storyforge, tmp_path):
    lock, rows, home = (copy / "dvc.lock").read_text(), listing(store).read_bytes(), listing(store)
    before = files(copy)
    for name in ("../make.py", "../../out.py", f"{tmp_path}/out.py", "deep/../../x.py", "./x", "deep//x"):
        add_row(store, name)
        record_listing(copy, store)
        said = storyforge("pull", status=1).stderr
        assert said.count("\n") == 1 and f"folder: its list names {name!r}, outside the folder" in said
        assert not [path for path in files(copy) - before if ".dvc" not in path.parts]
        (copy / "dvc.lock").write_text(lock)
        replace(listing(store).rename(home), rows)
    assert b"abort" not in (copy / "make.py").read_bytes() and not (tmp_path / "out.py").exists()


def test_a_link_in_the_folder_is_not_followed_out_of_it(copy, store, storyforge, tmp_path):
    add_row(store, "link/x.py")
    record_listing(copy, store)
    (tmp_path / "elsewhere").mkdir()
    (copy / "folder").mkdir()
    (copy / "folder" / "link").symlink_to(tmp_path / "elsewhere")
    assert "'link/x.py', outside the folder" in storyforge("pull", status=1).stderr
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_hash_that_is_a_path_is_refused(copy, store, storyforge):
    add_row(store, "x.py", "../../../../make.py")
    record_listing(copy, store)
    assert "for a hash: nothing was checked out" in storyforge("pull", status=1).stderr


def test_what_an_earlier_fetch_took_is_not_trusted(copy, store, storyforge):
    """Tampered objects of an earlier `dvc fetch` are in the cache, and DVC remembers their list by heart."""
    add_row(store, "../evil.py")
    here = Repository(copy, os.environ)
    here.dvc("fetch")
    here.dvc("data", "status", "--granular")
    said = storyforge("pull", status=1).stderr
    assert "folder has other bytes" in said and not (copy / "evil.py").exists()
    listed = listing(store)
    replace(listed, json.dumps(json.loads(listed.read_bytes())[:-1]).encode())
    storyforge("pull")
    assert not (copy / "evil.py").exists()
    assert storyforge("verify").stdout.startswith("204 files, ")


def test_without_any_safeguard_dvc_writes_outside(copy, store):
    """Why all of the above: DVC itself, with `verify = true`."""
    add_row(store, "../evil.py")
    here = Repository(copy, os.environ)
    here.dvc("remote", "modify", "store", "verify", "true")
    here.dvc("pull", "folder")
    assert (copy / "evil.py").read_bytes() == FORGED


@pytest.mark.parametrize("gone", ["*", "*.dir"])
def test_what_the_remote_lacks_is_named_and_the_rest_comes(copy, store, storyforge, gone):
    for path in store.rglob(gone):
        if path.is_file():
            path.unlink()
    if gone == "*":
        said = storyforge("pull", status=1).stderr
        assert said.startswith("error: neither the cache nor the remote has single.bin, folder: `dvc repro`")
        assert said.count("\n") == 1
    else:
        said = storyforge("pull").stdout.splitlines()
        assert said[0] == "verified and checked out: single.bin"
        assert said[1].startswith("neither the cache nor the remote has folder: `dvc repro` builds")


def unset(copy: Path) -> None:
    Repository(copy, os.environ).dvc("remote", "remove", "store")


def keyless(copy: Path) -> None:
    here = Repository(copy, os.environ)
    here.dvc("remote", "add", "--force", "store", "s3://bucket/dvc")
    here.dvc("remote", "modify", "store", "endpointurl", "http://127.0.0.1:9")


def torn(copy: Path) -> None:
    (copy / "dvc.lock").write_text("stages:")


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (unset, "no remote: config file error: no remote specified"),
        (keyless, "Unable to locate credentials: credentials go into `dvc remote modify --local store …`"),
        (torn, "dvc.lock: empty, cut short or no lock file"),
    ],
)
def test_each_reason_is_one_line(
    copy, store, storyforge, monkeypatch, breakage: Callable[[Path], None], words: str
):
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    breakage(copy)
    said = storyforge("pull", status=1).stderr
    assert words in said and said.count("\n") == 1


def test_own_changes_are_kept(copy, store, storyforge):
    storyforge("pull")
    (copy / "single.bin").chmod(0o644)
    (copy / "single.bin").write_bytes(b"mine")
    said = storyforge("pull", status=1).stderr
    assert said.startswith("error: DVC: ") and said.count("\n") == 1
    assert (copy / "single.bin").read_bytes() == b"mine"


def test_a_pipe_or_a_device_in_the_remote_is_refused(copy, store, storyforge):
    """Read as a file, one would never end and the other fill the disk."""
    file = next(file for file in store.rglob("*") if file.is_file() and file.stat().st_size == 3000)
    file.unlink()
    os.mkfifo(file)
    assert "is no file as large as single.bin" in storyforge("pull", "single.bin", status=1).stderr
    file.unlink()
    file.symlink_to("/dev/zero")
    assert "single.bin" in storyforge("pull", "single.bin", status=1).stderr


def test_a_remote_that_is_not_there_is_told_from_one_that_lacks_something(copy, store, storyforge):
    shutil.rmtree(store.parents[1])
    assert "is not there, or is empty" in storyforge("pull", status=1).stderr
