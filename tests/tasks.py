"""Tasks for processes that a test starts: a module that those can import, as they cannot a test's own."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from storyforge.collect.reading import Record
from storyforge.collect.shards import Maker
from storyforge.core.errors import UserError
from storyforge.core.storage import Work
from storyforge.preprocess.examiner import Examiner

EXAMINE = Examiner.examine
SILENT_S = 60


def squared(number: int) -> int:
    return number * number


def mistaken(number: int) -> None:
    raise UserError(f"file {number}: mend it")


def mistaken_or_silent(number: int) -> None:
    """The first is mistaken, the others wait."""
    if number:
        time.sleep(SILENT_S)
    mistaken(number)


def process(_: int) -> int:
    time.sleep(0.02)
    return os.getpid()


def killed_once(item: tuple[str, int]) -> int:
    """The first to come to a number with a mark takes the mark away and is killed."""
    folder, number = item
    mark = Path(folder, str(number))
    if mark.exists():
        mark.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed_at_seven(number: int) -> int:
    if number == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


class KilledExaminer(Examiner):
    """Killed at a story that has a mark in the folder `marks`, which it takes off unless it is `for ever`."""

    def of_story(self, story):
        mark = Path("marks", story.id)
        if mark.exists():
            if mark.read_text() != "for ever":
                mark.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().of_story(story)


def ended_at(patch, number: int) -> Callable[[], list[int]]:
    """Ends a run at that shard, as Ctrl-C does.

    What is returned lets the next one go on, and gives a list that its shards are entered in.
    """
    again = []

    def ended(examiner, shard):
        if shard.number == number:
            raise KeyboardInterrupt
        EXAMINE(examiner, shard)

    def noted(examiner, shard):
        again.append(shard.number)
        EXAMINE(examiner, shard)

    def gone_on() -> list[int]:
        patch.setattr(Examiner, "examine", noted)
        return again

    patch.setattr(Examiner, "examine", ended)
    return gone_on


class KilledMaker(Maker):
    """Killed once, in the middle of a share, where there is a file `mark`, which it takes away."""

    def make(self, share):
        if share.number == 3 and Path("mark").exists():
            Path("mark").unlink()
            share = replace(share, records=killed)
        super().make(share)


def killed():
    yield Record("a", 1, None, (b"p", b"s"))
    os.kill(os.getpid(), signal.SIGKILL)


def length(item: tuple[str, str]) -> int:
    """Of a file of a work folder."""
    root, name = item
    return Work(root).read(name).stat().st_size


class BlindExaminer(Examiner):
    """As on a machine that does not see the clone's files."""

    def examine(self, shard):
        super().examine(replace(shard, path=Path("/nowhere", shard.path.name)))


class MeetingExaminer(BlindExaminer):
    """And waits for another node, of those of ray_cluster.py, to have done a shard too."""

    def examine(self, shard):
        super().examine(shard)
        end = time.monotonic() + 60
        while len({path.parts[0] for path in Path().glob("*/work/*/*/read.json")}) < 2:
            assert time.monotonic() < end, "no other node works"
            time.sleep(0.05)
