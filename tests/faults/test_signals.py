"""SIGTERM and Ctrl-C: the step is finished and saved, the status says so, and the next run goes on."""

import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from warm import FIGURES

DEAF = ("without", "signal", "signal", "lambda *_: None")


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("every", [1, 100])
def test_stopped_at_random(training, whole, what, every):
    """The kernel's status where the signal comes before or after training: there is nothing to be saved."""
    pick, statuses = random.Random(1601 + every), []
    training.choose(checkpoint_every=every)
    begin = time.perf_counter()
    assert training.run() == 0 and training.outputs() == whole
    length = time.perf_counter() - begin
    while len(statuses) < 6 or statuses.count(128 + what) < 2:
        assert len(statuses) < 40, f"the signal never meets training: {statuses}"
        training.clear()
        shutil.rmtree(training.work)
        pid = training.start()
        if len(statuses) < 3:
            time.sleep(pick.uniform(0, length))
        else:  # most of so short a run comes before its first step
            training_begins(pid)
            time.sleep(pick.uniform(0, length / 10))
        os.kill(pid, what)
        statuses.append(training.wait(pid))
        assert statuses[-1] in (128 + what, -what, 0), training.said
        assert statuses[-1] != 0 or training.outputs() == whole
        training.clear()
        assert training.run() == 0 and training.outputs() == whole
    assert "Traceback" not in training.said
    FIGURES.append(f"{what.name} at random, a checkpoint every {every}: statuses {statuses}")


def training_begins(pid: int, seconds: float = 60) -> None:
    """Until the stage catches SIGTERM (Linux says so), or has ended."""
    end, file = time.monotonic() + seconds, Path(f"/proc/{pid}/status")
    while file.exists() and time.monotonic() < end:
        caught = re.search(r"^SigCgt:\s*(\w+)", text := file.read_text(), re.MULTILINE)
        if "State:\tZ" in text or (caught and int(caught[1], 16) >> signal.SIGTERM - 1 & 1):
            return
        time.sleep(0.002)


def test_stopped_between_two_steps_saves_and_says_so(training, whole):
    """Without the handler the status is the kernel's, and what was in memory is lost."""
    deaf = training.copy(training.folder.with_name("deaf"))
    call = ("stop_at", 60, signal.SIGTERM)
    assert training.run(call) == 128 + signal.SIGTERM
    assert deaf.run(call, DEAF) == -signal.SIGTERM
    assert len(training.checkpoints()) == 2 and training.run() == 0 and training.outputs() == whole
