import fcntl
import json
import os

import pytest
from safetensors import SafetensorError

from storyforge.core.errors import UserError
from storyforge.train import checkpoints
from storyforge.train.checkpoints import (
    discard,
    explain_start,
    newest,
    save,
    work_directory,
)


def write(text):
    def fill(directory):
        (directory / "weights").write_text(text)
        (directory / "state").write_text("s")

    return fill


def test_the_newest_step_is_resumed_whatever_the_clock_says(tmp_path):
    save(tmp_path, 2, write("two"))
    save(tmp_path, 10, write("ten"))
    os.utime(newest(tmp_path), (0, 0))
    assert (newest(tmp_path) / "weights").read_text() == "ten"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda c: (c / "weights").write_text("tem"),
        lambda c: (c / "weights").unlink(),
        lambda c: (c / "weights").write_text(""),
        lambda c: (c / "MANIFEST.json").unlink(),
        lambda c: (c / "MANIFEST.json").write_text("{"),
        lambda c: (c / "MANIFEST.json").write_text("{}"),
        lambda c: (c / "MANIFEST.json").write_text("[]"),
        lambda c: (c / "MANIFEST.json").write_text("[" * 100_000),
        lambda c: (c / "MANIFEST.json").write_text(json.dumps({"gone": "0" * 64})),
        lambda c: (c / "planted").write_text("more"),
    ],
)
def test_a_broken_checkpoint_is_set_aside_for_the_one_before(tmp_path, break_it):
    save(tmp_path, 1, write("one"))
    save(tmp_path, 2, write("two"))
    break_it(newest(tmp_path))
    assert (newest(tmp_path) / "weights").read_text() == "one"
    assert [path.name[:15] for path in tmp_path.glob("broken-*")] == ["broken-step-000"]


def test_a_checkpoint_of_another_run_or_step_is_not_taken_for_one_of_this(tmp_path):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for work in (ours, theirs):
        work.mkdir()
        save(work, 1, write(work.name))
    save(theirs, 2, write("two"))
    os.rename(newest(theirs), ours / "step-00000002")
    os.rename(newest(theirs), ours / "step-00000003")
    assert (newest(ours) / "weights").read_text() == "ours"


def test_the_same_step_can_break_twice(tmp_path):
    for _ in range(2):
        save(tmp_path, 1, write("one"))
        (newest(tmp_path) / "weights").unlink()
        assert newest(tmp_path) is None


def test_nothing_valid_means_a_fresh_start(tmp_path):
    save(tmp_path, 1, write("one"))
    (newest(tmp_path) / "weights").unlink()
    assert newest(tmp_path) is None


def test_two_checkpoints_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, write(str(step)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(28, FULL), RuntimeError(FULL), SafetensorError(f"I/O: {FULL}")])
def test_a_failing_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path, error):
    """Each library has an error of its own for a full disk."""
    save(tmp_path, 1, write("one"))

    def fail(directory):
        (directory / "weights").write_text("half")
        raise error

    with pytest.raises(UserError, match="step 2 could not be saved, .*No space left"):
        save(tmp_path, 2, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 1, write("one"))
    save(tmp_path, 1, write("uno"))
    assert (newest(tmp_path) / "weights").read_text() == "uno"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path))
    monkeypatch.setattr(checkpoints, "WAIT_S", 0.3)
    return tmp_path


def test_two_processes_cannot_train_one_run(root):
    with work_directory("k") as work, pytest.raises(UserError, match="another process"), work_directory("k"):
        pass
    with work_directory("k") as again:
        assert again == work == root / "k"


def test_a_run_waits_for_one_that_is_ending(root, monkeypatch):
    (root / "k").mkdir()
    ending = (root / "k" / "lock").open("w")
    fcntl.flock(ending, fcntl.LOCK_EX)
    monkeypatch.setattr(checkpoints.time, "sleep", lambda _: ending.close())
    with work_directory("k"):
        assert ending.closed


def test_a_lock_whose_directory_was_deleted_is_taken_again(root, monkeypatch):
    """The other process ended between our opening its lock file and our locking it."""
    flock, deleted = fcntl.flock, []

    def delete_first(lock, how):
        if not deleted:
            deleted.append(discard(root / "k"))
        flock(lock, how)

    monkeypatch.setattr(checkpoints.fcntl, "flock", delete_first)
    with work_directory("k") as work:
        assert deleted and (work / "lock").exists()


def test_the_other_processes_of_one_run_need_no_lock(root, monkeypatch):
    with work_directory("k") as work:
        monkeypatch.setenv("RANK", "1")
        with work_directory("k") as shared:
            assert shared == work


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(root, monkeypatch):
    (root / "file").write_text("")
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(root / "file"))
    with (
        pytest.raises(UserError, match="Not a directory: set STORYFORGE_CHECKPOINT_DIR"),
        work_directory("k"),
    ):
        pass


def test_what_killed_runs_left_is_cleared_away(root):
    for left in (".trash-other", "k/.trash-step-00000001", "k/.staging"):
        (root / left).mkdir(parents=True)
        (root / left / "half").write_text("")
    with work_directory("k") as work:
        assert [path.name for path in work.iterdir()] == ["lock"]
    assert [path.name for path in root.iterdir()] == ["k"]


def test_the_work_of_the_runs_left_longest_ago_is_forgotten_but_not_of_one_in_progress(root):
    for age, key in enumerate("abcdefg"):
        (root / key).mkdir()
        (root / key / "lock").write_text("")
        os.utime(root / key / "lock", (0, 1000 - age))
    with (root / "g" / "lock").open("a") as running:
        fcntl.flock(running, fcntl.LOCK_EX)
        with work_directory("f"):
            assert sorted(path.name for path in root.iterdir()) == ["a", "b", "c", "d", "f", "g"]


def test_experiments_in_other_folders_share_the_main_repositorys_checkpoints(tmp_path, monkeypatch):
    monkeypatch.delenv("STORYFORGE_CHECKPOINT_DIR", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with work_directory("k") as work:
        assert work == tmp_path / ".checkpoints" / "k"


def other(root, key, step, parts):
    """The work of another run."""
    (root / key).mkdir()
    explain_start(root / key, parts)
    save(root / key, step, write("theirs"))


def test_a_fresh_start_says_which_checkpoints_do_not_fit_and_why(tmp_path, capsys):
    parts = {"params": {"train": {"seed": 1, "lora": {"r": 4}}}, "files": {"a.py": "0" * 64}, "processes": 1}
    other(tmp_path, "one", 3, parts | {"files": {"a.py": "1" * 64}})
    other(tmp_path, "two", 4, parts | {"params": {"train": {"seed": 2, "lora": {"r": 4}}}, "machine": {}})
    other(tmp_path, "own", 5, {})
    (tmp_path / "two" / "run.json").write_text("{")
    (tmp_path / "none").mkdir()
    capsys.readouterr()
    (tmp_path / "new").mkdir()
    explain_start(tmp_path / "new", parts)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("starts anew: ")
    assert f"{tmp_path}/one/step-00000003, with another files.a.py; " in said
    assert f"{tmp_path}/two/step-00000004, whose run.json cannot be read\n" in said
    more = "params.train.lora.r absent → 4, params.train.seed absent → 1, and 1 more"
    assert f"{tmp_path}/own/step-00000005, with another files.a.py, {more}; " in said


def test_a_resumed_run_and_one_alone_say_nothing_of_others(tmp_path, capsys):
    (tmp_path / "alone").mkdir()
    explain_start(tmp_path / "alone", {"seed": 1})
    save(tmp_path / "alone", 3, write("ours"))
    other(tmp_path, "another", 3, {"seed": 2})
    capsys.readouterr()
    explain_start(tmp_path / "alone", {"seed": 1})
    assert capsys.readouterr().out == ""
