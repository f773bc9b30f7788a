"""Work shared out to processes of this machine: its results come in order, whatever kills a process."""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any, TypeVar

from storyforge.core.errors import UserError

AHEAD = 4  # items a process, given out before their results are asked for: memory stays flat
MOST_TRIES = 3  # of one item
Item = TypeVar("Item")
Result = TypeVar("Result")
Run = Callable[[Callable[[Any], Any], Iterable[Any], Callable[[Any], str]], Iterator[Any]]


def processors() -> int:
    """How many this process may use: of a node's 128, those that its scheduler gave it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def running(processes: int) -> Iterator[Run]:
    """As `runner.running`. A pool starts with the first task, and ends with the block.

    An error ends its processes, too, whatever they are at: each might wait for a store that is silent.
    """
    stop, stopper = get_context("spawn").Pipe(duplex=False)
    pools = _Pools(processes, stop)
    try:
        yield partial(_shared, pools) if processes > 1 else lambda task, items, named: map(task, items)
    except BaseException:
        stopper.close()
        raise
    finally:
        pools.end()


@dataclass
class _Pools:
    """Of so many processes, one after the other: one that broke is of no more use."""

    processes: int
    stop: Connection  # once its other end is closed, the processes end
    pool: ProcessPoolExecutor | None = None

    def submitted(self, task: Callable[[Item], Result], item: Item) -> tuple[ProcessPoolExecutor, Future]:
        """The result to come; that of a pool that is broken already says so when it is asked for."""
        if not self.pool:
            how = {"initializer": _begin, "initargs": (self.stop,)}
            self.pool = ProcessPoolExecutor(self.processes, get_context("spawn"), **how)
        try:
            return self.pool, self.pool.submit(task, item)
        except BrokenProcessPool as error:
            future: Future = Future()
            future.set_exception(error)
            return self.pool, future

    def end(self) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)
        self.pool = None


def _shared(
    pools: _Pools, task: Callable[[Item], Result], items: Iterable[Item], named: Callable[[Item], str]
) -> Iterator[Result]:
    items = iter(items)
    given: deque[tuple[Item, ProcessPoolExecutor, Future]] = deque()
    try:
        while True:
            for item in islice(items, AHEAD * pools.processes - len(given)):
                given.append((item, *pools.submitted(task, item)))
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
                            "of memory?): free memory, or set `workers` lower in engine.yaml"
                        ) from None
                if used is pools.pool:  # else it is one that broke before
                    pools.end()
                # Nothing new is given out until this one is done: whom the last try ends on is to blame.
                used, future = pools.submitted(task, item)
            yield result
    finally:
        for _, _, future in given:
            future.cancel()


def _begin(stop: Connection) -> None:
    """In each process: Ctrl-C is the parent's to answer, and its error or death ends the process, too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(stop,), daemon=True).start()


def _end_with_parent(stop: Connection) -> None:
    wait([parent_process().sentinel, stop])
    os._exit(1)
