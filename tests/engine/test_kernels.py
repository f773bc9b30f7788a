"""The kernels' library: built once, found again, told apart by what the compiler made of the source."""

import shutil
from functools import cache

import pytest

from storyforge.engine import kernels

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="no C compiler with OpenMP here")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """A function that forgets what is loaded, as a new process does; the cache is a folder of its own."""
    monkeypatch.setattr(kernels, "place", lambda kind, name="": tmp_path / name)

    def forget():
        for name in ("library", "_loaded"):
            monkeypatch.setattr(kernels, name, cache(getattr(kernels, name).__wrapped__))

    forget()
    return forget


def built(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_second_process_finds_what_the_first_one_built(fresh, tmp_path, monkeypatch):
    first = kernels.identity()
    (name,) = built(tmp_path)
    assert name.endswith(f"-{first}.so")
    fresh()
    monkeypatch.setattr(kernels, "_build", None)
    assert kernels.identity() == first


def test_the_identity_is_the_same_wherever_the_source_and_the_compiler_lie(fresh, tmp_path, monkeypatch):
    """The file's name is not: another command is built for itself."""
    first, folder = kernels.identity(), tmp_path / "a long way" / "from here"
    folder.mkdir(parents=True)
    shutil.copy(kernels.SOURCE, folder / "kernels.c")
    monkeypatch.setattr(kernels, "SOURCE", folder / "kernels.c")
    monkeypatch.setenv("CC", "env cc")  # as people write CC="ccache gcc"
    fresh()
    assert kernels.identity() == first
    assert len({path.name for path in tmp_path.glob("*.so")}) == 2


def test_other_machine_code_is_another_identity_and_another_file(fresh, tmp_path, monkeypatch):
    first = kernels.identity()
    monkeypatch.setattr(kernels, "FLAGS", (*kernels.FLAGS, "-O1"))
    fresh()
    assert kernels.identity() != first and len(built(tmp_path)) == 2


def test_another_processor_does_not_take_a_library_made_for_this_one(fresh, tmp_path, monkeypatch):
    def name():
        return kernels._cache_name(["cc"])

    before, read = name(), kernels.Path.read_text
    monkeypatch.setattr(kernels.Path, "read_text", lambda path: read(path).replace("flags", "flags: amx9"))
    assert name() != before


@pytest.mark.parametrize("content", [b"", b"\x7fELF torn"])
def test_a_torn_library_is_built_again(fresh, tmp_path, content):
    identity = kernels.identity()
    (torn,) = tmp_path.iterdir()
    torn.unlink()  # what is mapped into this process must not change under it
    torn.write_bytes(content)
    fresh()
    assert kernels.identity() == identity and built(tmp_path) == [torn.name]


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false"])
def test_without_a_compiler_there_are_no_kernels_and_one_line_says_so(
    fresh, tmp_path, monkeypatch, capsys, compiler
):
    monkeypatch.setenv("CC", compiler)
    assert kernels.library() is None and kernels.identity() is None and kernels.library() is None
    assert capsys.readouterr().err == "no C compiler with OpenMP: the slower path is used\n"
    assert built(tmp_path) == []


def test_a_compiler_that_fails_leaves_nothing_behind(fresh, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "FLAGS", ("-fno-such-flag",))
    assert kernels.library() is None and built(tmp_path) == []
