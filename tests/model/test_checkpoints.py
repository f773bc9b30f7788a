import json

import pytest

from storyforge.launch import UserError
from storyforge.model import checkpoints
from storyforge.model.checkpoints import newest, run_key, save, work_directory


def write(text):
    def fill(directory):
        (directory / "weights").write_text(text)
        (directory / "state").write_text("s")

    return fill


def test_the_newest_step_is_resumed_whatever_the_clock_says(tmp_path):
    import os

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
        lambda c: (c / "MANIFEST.json").write_text(json.dumps({"gone": "0" * 64})),
    ],
)
def test_a_broken_checkpoint_is_set_aside_for_the_one_before(tmp_path, break_it):
    save(tmp_path, 1, write("one"))
    save(tmp_path, 2, write("two"))
    break_it(newest(tmp_path))
    assert (newest(tmp_path) / "weights").read_text() == "one"
    assert [path.name[:15] for path in tmp_path.glob("broken-*")] == ["broken-step-000"]


def test_nothing_valid_means_a_fresh_start(tmp_path):
    save(tmp_path, 1, write("one"))
    (newest(tmp_path) / "weights").unlink()
    assert newest(tmp_path) is None


def test_two_checkpoints_are_kept(tmp_path):
    for step in range(1, 6):
        save(tmp_path, step, write(str(step)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]


def test_a_failing_write_leaves_the_old_checkpoint_and_no_rubbish(tmp_path):
    save(tmp_path, 1, write("one"))

    def fail(directory):
        (directory / "weights").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match="step 2 could not be saved: No space left"):
        save(tmp_path, 2, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


def test_files_are_synced_before_the_rename_and_the_directory_after(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(checkpoints, "_sync", lambda path: events.append(f"sync {path.name}"))
    rename = type(tmp_path).rename
    monkeypatch.setattr(type(tmp_path), "rename", lambda a, b: (events.append("rename"), rename(a, b))[1])
    save(tmp_path, 1, write("one"))
    at = events.index("rename")
    assert {"sync weights", "sync state", "sync MANIFEST.json"} <= set(events[:at])
    assert events[at + 1] == f"sync {tmp_path.name}"


def test_the_same_step_can_be_saved_again(tmp_path):
    save(tmp_path, 1, write("one"))
    save(tmp_path, 1, write("uno"))
    assert (newest(tmp_path) / "weights").read_text() == "uno"


def test_two_processes_cannot_train_one_run(tmp_path, monkeypatch):
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path))
    with work_directory("k") as work, pytest.raises(UserError, match="another process"), work_directory("k"):
        pass
    with work_directory("k") as again:
        assert again == work == tmp_path / "k"


def test_experiments_in_other_folders_share_the_main_repositorys_checkpoints(tmp_path, monkeypatch):
    monkeypatch.delenv("STORYFORGE_CHECKPOINT_DIR", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    with work_directory("k") as work:
        assert work == tmp_path / ".checkpoints" / "k"


def test_the_key_changes_with_params_inputs_and_code(monkeypatch):
    key = run_key(params={"a": 1}, inputs={"x": "0"})
    assert key == run_key(inputs={"x": "0"}, params={"a": 1})
    assert key != run_key(params={"a": 2}, inputs={"x": "0"})
    assert key != run_key(params={"a": 1}, inputs={"x": "1"})
    monkeypatch.setattr(checkpoints, "sha256", lambda path: "edited")
    assert key != run_key(params={"a": 1}, inputs={"x": "0"})
