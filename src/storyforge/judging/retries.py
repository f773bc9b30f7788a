"""Requests that are sent again: capped waits, and one pause for all workers."""

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.judging.service import Failed

ATTEMPTS = 10
Result = TypeVar("Result")


class Stopped(Exception):
    """Another worker met an error that ends the run."""


class Pause:
    """Until when nobody sends a request, since the service had enough of one of them."""

    def __init__(self, longest_s: float):
        self.longest_s, self.until, self.stopped = longest_s, 0.0, threading.Event()

    def wait(self) -> None:
        while (left := self.until - time.monotonic()) > 0 and not self.stopped.wait(left):
            pass
        if self.stopped.is_set():
            raise Stopped

    def extend(self, seconds: float) -> None:
        self.until = max(self.until, time.monotonic() + seconds)

    def after(self, failed: Failed, attempt: int, identity: str) -> float:
        """Seconds: 1, 2, 4 …, half by chance, or as many as the service asks for; never above the cap."""
        own = min(2.0**attempt, self.longest_s) * (0.5 + rank(f"{identity}\0{attempt}", 0) / 2**65)
        return max(own, min(failed.retry_after, self.longest_s))


def persist(do: Callable[[], Result], pause: Pause, identity: str) -> Result:
    """What `do` returns in one of ATTEMPTS attempts; UserError where none succeeds."""
    for attempt in range(ATTEMPTS):
        pause.wait()
        try:
            return do()
        except Failed as failed:
            why = str(failed)
            pause.extend(pause.after(failed, attempt, identity))
    raise UserError(f"{why}, {ATTEMPTS} times in a row: run again later; what was answered is kept")
