"""The kernels' library: built once, found again, told apart by what the compiler made of the source."""

import ctypes
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from storyforge.core.cache import damaged
from storyforge.engine import kernels

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")
ALONE = "the kernels are compiled for this process alone\n"


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that forgets what is loaded, as a new process does; the cache is a folder of its own.

    Compiled without optimisation, which takes a tenth of the time.
    """
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "FLAGS", ("-O0", *kernels.FLAGS[1:]))

    def forget():
        for name in ("library", "_loaded"):
            monkeypatch.setattr(kernels, name, cache(getattr(kernels, name).__wrapped__))

    forget()
    return forget


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def no_compiling(monkeypatch):
    """As in a second process, which finds what the first one built."""

    def stop(*_):
        raise AssertionError("compiled again")

    return lambda: monkeypatch.setattr(kernels, "_compile", stop)


def built(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_second_process_finds_what_the_first_one_built(fresh, folder, no_compiling):
    first = kernels.identity()
    (name,) = built(folder)
    assert sorted(path.name for path in (folder / name).iterdir()) == [kernels.ASSEMBLY, kernels.LIBRARY]
    fresh(), no_compiling()
    assert kernels.identity() == first


def test_the_identity_is_the_same_wherever_the_source_and_the_compiler_lie(
    fresh, folder, tmp_path, monkeypatch
):
    """The folder's name is not: another command is built for itself."""
    first, elsewhere = kernels.identity(), tmp_path / "a long way" / "from here"
    elsewhere.mkdir(parents=True)
    shutil.copy(kernels.SOURCE, elsewhere / "kernels.c")
    monkeypatch.setattr(kernels, "SOURCE", elsewhere / "kernels.c")
    monkeypatch.setenv("CC", "env cc")  # as people write CC="ccache gcc"
    fresh()
    assert kernels.identity() == first
    assert len(built(folder)) == 2


def test_other_machine_code_is_another_identity_and_another_folder(fresh, folder, monkeypatch):
    first = kernels.identity()
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-O1"))
    fresh()
    assert kernels.identity() != first and len(built(folder)) == 2


def test_another_processor_or_user_does_not_take_a_library_made_for_this_one(fresh, monkeypatch):
    def name():
        return kernels._cache_name(["cc"])

    before, read = name(), kernels.Path.read_text
    with monkeypatch.context() as other:
        other.setattr(kernels.Path, "read_text", lambda path: read(path).replace("flags", "flags: amx9"))
        assert name() != before
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    assert name() != before


@pytest.mark.parametrize("content", [b"", b"\x7fELF torn", None], ids=["empty", "torn", "one bit"])
@pytest.mark.parametrize("file", [kernels.LIBRARY, kernels.ASSEMBLY])
def test_a_damaged_library_is_never_loaded_and_built_again(fresh, folder, file, content):
    identity = kernels.identity()
    (name,) = built(folder)
    path, whole = folder / name / file, (folder / name / file).read_bytes()
    path.unlink()  # what is mapped into this process must not change under it
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]) if content is None else content)
    assert [path for path, _ in damaged()] == [path]
    fresh()
    assert kernels.identity() == identity and built(folder) == [name, f"{name}.broken"]
    assert path.read_bytes() == whole and list(damaged()) == []


def test_a_library_whose_record_is_missing_is_built_again(fresh, folder):
    """As after a kill between the renaming and the record."""
    identity = kernels.identity()
    shutil.rmtree(folder.with_name("verified"))
    fresh()
    assert kernels.identity() == identity and len(built(folder)) == 2


@pytest.mark.parametrize("what", ["folder", "library"])
@pytest.mark.parametrize("how", ["writable by others", "owned by another"])
def test_a_library_that_another_user_may_have_written_is_not_loaded(
    fresh, folder, monkeypatch, capsys, how, what
):
    identity, loaded, load = kernels.identity(), [], ctypes.CDLL
    monkeypatch.setattr(ctypes, "CDLL", lambda path: loaded.append(path) or load(path))
    (name,) = built(folder)
    path = folder / name if what == "folder" else folder / name / kernels.LIBRARY
    if how == "writable by others":
        path.chmod(path.stat().st_mode | 0o022)
    elif os.geteuid() == 0:
        os.chown(path, 4242, -1)
    else:
        pytest.skip("only root gives files away")
    fresh()
    assert kernels.identity() == identity
    assert capsys.readouterr().err == f"{path} may have been written by another user: {ALONE}"
    assert len(loaded) == 1 and not loaded[0].startswith(str(folder))


@pytest.fixture
def read_only(tmp_path):
    """The cache, empty, on a disk that is mounted read-only: root may write to any folder."""
    place = tmp_path / "cache"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_read_only_cache_is_one_line_and_the_same_kernels(fresh, read_only, capsys):
    assert kernels.identity()
    said = capsys.readouterr().err
    assert said.startswith(str(read_only)) and said.endswith(ALONE) and said.count("\n") == 1


def test_a_cache_that_runs_no_programs_is_one_line_and_the_same_kernels(fresh, folder, monkeypatch, capsys):
    """Mounted noexec."""

    def load(path, real=ctypes.CDLL):
        if path.startswith(str(folder)):
            raise OSError(f"{path}: failed to map segment from shared object")
        return real(path)

    monkeypatch.setattr(ctypes, "CDLL", load)
    assert kernels.identity()
    said = capsys.readouterr().err
    assert said.endswith(f"failed to map segment from shared object: {ALONE}") and said.count("\n") == 1


def test_where_no_program_may_run_one_line_says_so_and_the_slower_path_is_used(fresh, monkeypatch, capsys):
    def refuse(path):
        raise OSError("failed to map segment from shared object")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert kernels.library() is None and kernels.identity() is None
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == (
        "the compiled kernels cannot be loaded (failed to map segment from shared object): "
        "the slower path is used"
    )


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", 'gcc "', "no-such-ccache gcc"])
def test_without_a_compiler_there_are_no_kernels_and_one_line_says_so(
    fresh, folder, monkeypatch, capsys, compiler
):
    monkeypatch.setenv("CC", compiler)
    assert kernels.library() is None and kernels.identity() is None and kernels.library() is None
    assert capsys.readouterr().err == "no C compiler with OpenMP: the slower path is used\n"
    assert built(folder) == []


def test_a_compiler_that_fails_leaves_nothing_behind_and_its_last_word_is_told(
    fresh, folder, monkeypatch, capsys
):
    monkeypatch.setattr(kernels, "FLAGS", ("-fno-such-flag",))
    assert kernels.library() is None and built(folder) == [] and built(folder.with_name("parts")) == []
    said = capsys.readouterr().err
    assert said.startswith("no C compiler with OpenMP (") and "no-such-flag" in said and said.count("\n") == 1


def test_a_full_disk_compiles_into_no_torn_library(fresh, folder, monkeypatch):
    """The part is removed, and nothing stands at the library's place."""

    def fill(compiler, target):
        target.mkdir()
        (target / kernels.LIBRARY).write_bytes(b"\x7fELF half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernels, "_compile", fill)
    assert kernels.library() is None and built(folder) == [] and built(folder.with_name("parts")) == []


def test_a_read_only_cache_without_kernels_holds_none(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("STORYFORGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: os.mkdir("/proc/nothing"))
    assert kernels.kept() == set()
