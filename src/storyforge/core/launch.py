"""How a stage starts and ends: paths in, one clear line for a user's mistake, volatile figures kept apart."""

import ctypes
import json
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storyforge.core.errors import UserError

PARENT = os.getppid()  # noted before the slow imports of a stage, in which it may die
SET_PARENT_DEATH_SIGNAL = 1  # prctl(2)


def launch(main: Callable[..., dict[str, Any] | None]) -> None:
    """Run `main` on the paths of the command line; the last one receives the figures that vary between runs.

    Seconds, peak memory and whatever `main` returns go there, so that they never touch a stage's outputs.
    A UserError ends the process with one line on stderr and status 1, Ctrl-C with status 130.
    """
    end_with_parent()
    if not first_process():
        sys.stdout = open(os.devnull, "w")  # it would say what the first one says
    warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other, not to our user
    sys.stdout.reconfigure(line_buffering=True)  # in a file, too, what is said stands before what went wrong
    *paths, timing = map(Path, sys.argv[1:])
    start = time.perf_counter()
    with answering():
        figures = main(*paths) or {}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        figures |= {
            "seconds": round(time.perf_counter() - start, 1),
            "peak_memory_mib": peak // 1024,
            "memory_limit_mib": memory_limit() >> 20,
        }
        if first_process():
            _write(timing, json.dumps(figures, indent=2, sort_keys=True) + "\n")


@contextmanager
def answering() -> Iterator[None]:
    """A UserError in it is one line on stderr and status 1, Ctrl-C status 130.

    Of several processes each may meet the same mistake: they leave the line to who started them.
    """
    try:
        yield
    except UserError as error:
        if told := os.environ.get("TORCHELASTIC_ERROR_FILE"):
            Path(told).write_text(json.dumps({"message": str(error), "timestamp": int(time.time())}))
        else:
            print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def first_process() -> bool:
    """Whether this is the first of several processes that make one run, or the only one: it alone writes."""
    return int(os.environ.get("RANK", 0)) == 0


def memory_limit(root: Path = Path("/")) -> int:
    """Bytes that this process may use: what the machine has, unless `ulimit -v` or a cgroup allows less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    limits += [] if address_space == resource.RLIM_INFINITY else [address_space]
    for folder in memory_cgroups(root):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, 1
            with suppress(OSError, ValueError):  # not of this version; "max" is none
                limits.append(int((folder / name).read_text()))
    return min(limits)


def memory_cgroups(root: Path = Path("/")) -> Iterator[Path]:
    """The folders of the cgroup that counts this process's memory, and of those around it, inmost first.

    In a container the kernel may tell the path outside: then what is mounted at the top is our own.
    """
    with suppress(OSError):  # not Linux
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers or "memory" in controllers.split(","):  # version 2, 1
                top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
                inmost = top / path.lstrip("/")
                around = [folder for folder in inmost.parents if folder.is_relative_to(top)]
                yield from filter(Path.is_dir, [inmost, *around])


def end_with_parent() -> None:
    """In a DVC stage on Linux: SIGTERM when the parent dies, so that kill -9 of `dvc repro` leaves no writer.

    The same in each process that torchrun started. That signal ends a stage as SIGKILL would, except while
    it trains: then it first saves a checkpoint. What is started by hand may outlive its shell. Elsewhere the
    lock of the work directory keeps two runs apart.
    """
    if sys.platform == "linux" and os.environ.keys() & {"DVC_STAGE", "TORCHELASTIC_RUN_ID"}:
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != PARENT:  # it died before it could be watched
            raise SystemExit(128 + signal.SIGTERM)


def _write(path: Path, text: str) -> None:
    """Whole or not at all; not worth a sync."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
