"""The work folder of a run: its own, gone on with, and gone when it is done."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bucket import DENIED, URL

from storyforge.core.errors import UserError
from storyforge.core.storage import Work
from storyforge.core.work import key_of, work_folder


def test_it_stays_after_an_error_and_goes_after_the_end(tmp_path):
    with pytest.raises(KeyError), work_folder(str(tmp_path / "w"), "one") as work:
        Path(work.root, "result").touch()
        raise KeyError
    assert Path(work.root, "result").exists()
    with work_folder(str(tmp_path / "w"), "one") as again:
        assert again == work and Path(work.root, "result").exists()
    assert list((tmp_path / "w").iterdir()) == []


def test_another_run_takes_away_what_was_left_but_not_what_is_in_use_nor_what_is_not_its(tmp_path):
    for folder in (
        "of somebody",
        ".work/of somebody",
    ):  # in ours, but without a lock; with one, but not in ours
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "of somebody/lock").touch()
    with pytest.raises(KeyError), work_folder(str(tmp_path), "left"):
        raise KeyError
    with work_folder(str(tmp_path), "used"), work_folder(str(tmp_path), "new"):
        names = {path.name for path in (tmp_path / ".work").iterdir()}
        assert names == {key_of("new"), "of somebody", key_of("used")}
    assert [path.name for path in (tmp_path / ".work").iterdir()] == ["of somebody"]
    assert (tmp_path / "of somebody/lock").exists()


def test_two_processes_at_the_same_work_are_one_too_many(tmp_path):
    code = (
        "from storyforge.core.work import work_folder\n"
        f"with work_folder({str(tmp_path)!r}, 'one'):\n    print('there', flush=True)\n    input()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    assert process.stdout.readline() == "there\n"
    said = f"{key_of('one')}: another process is at this very work: wait"
    with pytest.raises(UserError, match=said), work_folder(str(tmp_path), "one"):
        pass
    process.kill()
    process.communicate()
    with work_folder(str(tmp_path), "one") as work:  # its lock has ended with it
        assert Path(work.root).is_dir()


def test_it_lies_beside_the_main_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with work_folder(None, "one") as work:
        assert work == Work(str(tmp_path / ".work" / key_of("one")))


def test_a_file_in_its_place_is_named(tmp_path):
    Path(tmp_path / "w").touch()
    with (
        pytest.raises(UserError, match="w/.work: .*: give engine.yaml a `work`"),
        work_folder(str(tmp_path / "w"), "k"),
    ):
        pass


@pytest.fixture
def clone(monkeypatch, tmp_path):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "clone"))
    return tmp_path / "clone"


def result(work: Work) -> None:
    with work.publishing("result") as file:
        file.write(b"1")


def test_in_a_store_it_stays_after_an_error_and_goes_after_the_end(clone, store):
    with pytest.raises(KeyError), work_folder(URL, "one") as work:
        result(work)
        raise KeyError
    with work_folder(URL, "one") as again:
        assert again == work == Work(f"{URL}/{key_of('one')}") and again.read("result").read_bytes() == b"1"
    assert Work(URL).names() == set() and list(clone.iterdir()) == []


def test_another_run_takes_away_what_this_clone_left_in_a_store_and_nothing_else(clone, store, tmp_path):
    result(Work(f"{URL}/of another clone"))
    for chosen, key in ((URL, "left"), (f"{URL}/deeper", "same")):
        with pytest.raises(KeyError), work_folder(chosen, key) as work:
            result(work)
            raise KeyError
    with work_folder(str(tmp_path / "folder"), "new"):
        pass
    of_another, deeper = {"of another clone/result"}, f"deeper/{key_of('same')}"
    assert Work(URL).names() == {f"{deeper}/begun", f"{deeper}/result"} | of_another
    with work_folder(None, "same"):
        assert Work(URL).names() == of_another


def test_a_store_that_keeps_what_is_done_with_is_said(clone, store, capsys):
    with work_folder(URL, "one") as work:
        result(work)
        store.refuse = lambda method, path: DENIED if method != "GET" else None
    said = f"^note: {URL}/{key_of('one')} stays: {URL}/{key_of('one')}: ACCESS_DENIED in "
    assert re.search(said, capsys.readouterr().out)


def test_a_store_that_cannot_be_written_is_said_before_anything_is_done(clone, store):
    store.refuse = lambda method, path: DENIED if method != "GET" else None
    with pytest.raises(UserError, match="ACCESS_DENIED in PutObject"), work_folder(URL, "one"):
        raise AssertionError


def test_the_key_is_of_all_that_decides_the_bytes(monkeypatch):
    key = key_of([{"a": 1, "b": 2}, "seed"])
    assert key == key_of([{"b": 2, "a": 1}, "seed"]) and len(key) == 16
    assert key != key_of([{"a": 1, "b": 3}, "seed"])
    monkeypatch.setattr("storyforge.core.work.identity", lambda: {"storyforge": "another"})
    assert key != key_of([{"a": 1, "b": 2}, "seed"])
