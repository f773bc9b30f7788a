"""Work shared out to processes of this machine: its results come in order, whatever kills a process."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import TypeVar

from storyforge.core.errors import UserError

AHEAD = 4  # items a process, given out before their results are asked for: memory stays flat
MOST_TRIES = 3  # of one item
Item = TypeVar("Item")
Result = TypeVar("Result")


def processors() -> int:
    """How many this process may use: of a node's 128, those that its scheduler gave it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shared(
    task: Callable[[Item], Result], items: Iterable[Item], processes: int, named: Callable[[Item], str]
) -> Iterator[Result]:
    """What `task` makes of each item, in order; `task`, items and results are pickled.

    A process that is killed (out of memory, a node taken away) costs the pool and not the run: what is
    unfinished is given out again. UserError, with the item's name, where that has ended thrice so.
    """
    if processes < 2:
        yield from map(task, items)
        return
    items, pool = iter(items), _pool(processes)
    given: deque[tuple[Item, ProcessPoolExecutor, Future]] = deque()
    try:
        while True:
            for item in islice(items, AHEAD * processes - len(given)):
                given.append((item, pool, _submitted(pool, task, item)))
            if not given:
                return
            item, used, future = given.popleft()
            for left in reversed(range(MOST_TRIES)):
                try:
                    result = future.result()
                    break
                except BrokenProcessPool:
                    if not left:
                        raise UserError(
                            f"{named(item)}: a process that worked on it was killed {MOST_TRIES} times (out "
                            "of memory?): free memory, or run on one processor: `taskset -c 0 dvc repro`"
                        ) from None
                if used is pool:  # else it is one that broke before
                    pool.shutdown()
                    pool = _pool(processes)
                # Nothing new is given out until this one is done: whom the last try ends on is to blame.
                used, future = pool, _submitted(pool, task, item)
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, get_context("spawn"), initializer=_begin)


def _begin() -> None:
    """In each process: Ctrl-C is the parent's to answer, and its death ends the process, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent_process().join()
    os._exit(1)


def _submitted(pool: ProcessPoolExecutor, task: Callable[[Item], Result], item: Item) -> Future:
    """The result to come; that of a pool that is broken already says so when it is asked for."""
    try:
        return pool.submit(task, item)
    except BrokenProcessPool as error:
        future: Future = Future()
        future.set_exception(error)
        return future
