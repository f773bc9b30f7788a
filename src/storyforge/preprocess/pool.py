"""Work shared out among processes: answers in order, and a killed worker costs no more than its work."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

from storyforge.core.errors import UserError

AHEAD = 4  # items a worker that wait for it or for an earlier answer: memory stays flat
TRIES = 2  # of an item alone, after the pool was lost with it
Item, Answer = TypeVar("Item"), TypeVar("Answer")

_task: Callable[[Any], Any]  # of a worker: sent once, not with every item


def shared_out(task: Callable[[Item], Answer], items: Iterable[Item], workers: int) -> Iterator[Answer]:
    """`task` of each item, in the order of the items; both are pickled.

    Linux kills a process where memory runs out, and a pool with it. What had no answer then is given again,
    one item at a time, so that the one at fault is known. UserError where an item loses its worker each time.
    """
    items, unanswered = iter(items), deque()
    while True:
        try:
            with _pool(task, workers) as pool:
                yield from _answers(pool, items, unanswered, AHEAD * workers)
            return
        except BrokenProcessPool:
            yield from _one_by_one(task, unanswered)


def _answers(pool: ProcessPoolExecutor, items: Iterator, unanswered: deque, most: int) -> Iterator[Any]:
    running = deque()
    for item in items:
        unanswered.append(item)
        running.append(pool.submit(_do, item))
        if len(running) == most:
            yield _oldest(running, unanswered)
    while running:
        yield _oldest(running, unanswered)


def _oldest(running: deque, unanswered: deque) -> Any:
    answer = running.popleft().result()
    unanswered.popleft()
    return answer


def _one_by_one(task: Callable, unanswered: deque) -> Iterator[Any]:
    """A worker serves all of them, but for a new one after each loss."""
    losses = 0  # of the oldest item
    while losses < TRIES:
        with suppress(BrokenProcessPool), _pool(task, 1) as pool:
            while unanswered:
                answer = pool.submit(_do, unanswered[0]).result()
                unanswered.popleft()
                losses = 0
                yield answer
            return
        losses += 1
    raise UserError(
        f"a worker was killed {TRIES + 1} times over the same texts, perhaps for memory: "
        "close other programs, or look in data/raw for a text of many megabytes"
    )


@contextmanager
def _pool(task: Callable, workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(task,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(task: Callable) -> None:
    global _task
    _task = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group: the parent ends it
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A worker waits for items on a pipe that it holds open itself: it would outlive a killed parent."""
    parent_process().join()
    signal.raise_signal(signal.SIGKILL)


def _do(item: Any) -> Any:
    return _task(item)
