"""SIGTERM and Ctrl-C: the step is finished and saved, the status says so, and the next run goes on."""

import os
import random
import signal
import time

import pytest
from warm import FIGURES

DEAF = ("without", "signal", "signal", "lambda *_: None")


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("every", [1, 100])
def test_stopped_at_random(training, whole, what, every):
    """-15 where training has not begun: nothing is there to be saved. 0 only if the run was over."""
    pick, statuses = random.Random(1601 + every), []
    expected = training.choose(checkpoint_every=every)
    assert expected.run() == 0 and expected.outputs() == whole
    for _ in range(6):
        training.clear()
        pid = training.start()
        time.sleep(pick.uniform(0, 0.8))
        os.kill(pid, what)
        statuses.append(training.wait(pid))
        assert statuses[-1] in (128 + what, -signal.SIGTERM, 0), training.said
        assert statuses[-1] != 0 or training.outputs() == whole
    training.clear()
    assert training.run() == 0 and training.outputs() == whole
    assert "Traceback" not in training.said
    FIGURES.append(f"{what.name} at random, a checkpoint every {every}: statuses {statuses}")


def test_stopped_between_two_steps_saves_and_says_so(training, whole):
    """Without the handler the status is the kernel's, and what was in memory is lost."""
    deaf = training.copy(training.folder.with_name("deaf"))
    call = ("stop_at", 60, signal.SIGTERM)
    assert training.run(call) == 128 + signal.SIGTERM
    assert deaf.run(call, DEAF) == -signal.SIGTERM
    assert len(training.checkpoints()) == 2 and training.run() == 0 and training.outputs() == whole
