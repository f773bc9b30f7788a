"""Old checkpoints lie there, and the params, the data or the code are others; or two run at once."""

import os
import shutil
import signal
import time

import pytest
from warm import FIGURES

ONE_KEY = (
    ("without", "storyforge.train.job", "run_key", "lambda **parts: 'one'"),
    ("without", "storyforge.train.job", "_refuse_slower", "lambda parts: None"),  # it would find that key
)
NO_LOCK = ("without", "fcntl", "flock", "lambda *_: None")
IMPATIENT = ("without", "storyforge.train.checkpoints", "WAIT_S", "0.3")
ENDLESS = ("without", "storyforge.train.loop", "_finished", "lambda run, plan: False")
KILLED = (
    "without",
    "storyforge.train.stage",
    "published_folder",
    "lambda path: __import__('signal').raise_signal(9)",
)


def other_params(place, _) -> None:
    place.choose(learning_rate=0.02)


def other_data(place, _) -> None:
    """One word of one story."""
    file = place.folder / "data" / "processed" / "train.jsonl"
    file.write_text(file.read_text().replace("birds", "beasts", 1))


def other_code(_, source) -> None:
    with (source / "storyforge" / "train" / "stage.py").open("a") as file:
        file.write("# edited\n")


@pytest.fixture
def editable(source):
    """The package's source, as it was afterwards."""
    stage = source / "storyforge" / "train" / "stage.py"
    before = stage.read_text()
    yield source
    stage.write_text(before)


CHANGES = [other_params, other_data, other_code]


@pytest.mark.parametrize("change", CHANGES)
def test_checkpoints_of_another_run_are_not_used(interrupted, editable, change):
    fresh = interrupted.copy(interrupted.folder.with_name("fresh"))
    shutil.rmtree(fresh.work)
    change(interrupted, editable)
    if change is not other_code:
        change(fresh, editable)
    assert fresh.run() == 0 and interrupted.run() == 0
    assert "resumed" not in interrupted.said
    assert interrupted.outputs() == fresh.outputs()
    FIGURES.append(f"{change.__name__}, old checkpoints there: 0 reused")


@pytest.mark.parametrize("change", CHANGES)
def test_without_the_key_they_are(training, editable, change):
    assert training.run(("die_at", 90), *ONE_KEY) == -9
    change(training, editable)
    assert training.run(*ONE_KEY) == 0
    assert "resumed" in training.said


def test_back_to_the_old_params_goes_on_where_they_were_left(interrupted, whole):
    interrupted.choose(learning_rate=0.02)
    assert interrupted.run() == 0
    interrupted.clear()
    interrupted.choose(learning_rate=0.01)
    assert interrupted.run() == 0
    assert "resumed from step 4" in interrupted.said and interrupted.outputs() == whole


def test_two_runs_at_once_end_with_the_same_bytes(training, whole):
    """The second waits for the lock, and then finds nothing to resume."""
    runs = [training.start() for _ in range(2)]
    assert [training.wait(pid) for pid in runs] == [0, 0], training.said
    assert training.outputs() == whole


@pytest.fixture
def stopped(training, whole):
    """A run that stands still in the middle, alive."""
    pid = training.start(("stop_at", 60, signal.SIGSTOP))
    while len(training.checkpoints()) < 2:
        time.sleep(0.02)
    return pid


def test_second_run_says_that_another_one_is_in_its_place(training, whole, stopped):
    assert training.run(IMPATIENT) == 1
    assert "another process is training this very run" in training.said
    assert not training.outputs()
    os.kill(stopped, signal.SIGCONT)
    assert training.wait(stopped) == 0 and training.outputs() == whole


def test_without_the_lock_it_takes_the_first_ones_work_away(training, whole, stopped):
    assert training.run(IMPATIENT, NO_LOCK) == 0
    os.kill(stopped, signal.SIGCONT)
    assert training.wait(stopped) == 1


def test_a_finished_run_trains_no_step_more(training):
    """Killed between the last step and the publication; the rate is constant, so that a step would show."""
    training.choose(schedule="constant")
    endless = training.copy(training.folder.with_name("endless"))
    assert training.run() == 0
    whole = training.outputs()
    training.clear()
    for place in (training, endless):
        assert place.run(KILLED) == -9 and len(place.checkpoints()) == 2
    assert training.run() == 0 and training.outputs() == whole
    assert "resumed from step 6" in training.said
    assert endless.run(ENDLESS) == 1
