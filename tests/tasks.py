"""What workers of a pool are given: they import it, as they cannot a test's own file."""

import os
import signal
from pathlib import Path

from storyforge.core.errors import UserError


def double(number):
    return 2 * number


def dies(number, *, at, times, notes):
    """`double`, in a process that is killed the first `times` times that it comes to number `at`."""
    if number == at and len(list(Path(notes).iterdir())) < times:
        Path(notes, f"{os.getpid()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def refuses(number):
    raise UserError(f"{number} is no story")
