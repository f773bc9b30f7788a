"""Stages and scripts that start at once, so that they can be killed by the dozen.

A server imports all that stages need (six seconds, most of them torch) and forks a process for each order,
which is a stage in every respect but that: its own session, working directory, command line and environment.
What shall go wrong in it is ordered by name: one of `FAULTS`, applied before the stage starts.
"""

import errno
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

STAGES = ("collect", "preprocess", "train", "evaluate", "revise", "align", "judge", "report")
DISK = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir")  # what changes names, or must last
Fault = Sequence[Any]  # the name of one of FAULTS, and its arguments
FIGURES: list[str] = []  # what the tests found, for the end of their report


@dataclass
class Warm:
    """The server, and orders to it."""

    server: subprocess.Popen

    @classmethod
    def up(cls, source: Path) -> "Warm":
        """With the package below `source`, which the test may edit: no process is started from it again."""
        env = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
        env.pop("PYTHONUNBUFFERED", None)  # users do not set it, and it would put their lines in order
        command, pipe = [sys.executable, __file__], subprocess.PIPE
        warm = cls(subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True))
        assert warm.server.stdout.readline() == "ready\n"
        return warm

    def start(self, words: Sequence[str], cwd: Path, faults: Sequence[Fault], env: Mapping[str, str]) -> int:
        """The process number of a stage or a script; `words` is its name and its paths."""
        return self._ask({"words": list(words), "cwd": str(cwd), "faults": list(faults), "env": dict(env)})

    def wait(self, pid: int) -> int:
        """Its status, negative for the signal that ended it."""
        return self._ask({"wait": pid})

    def run(self, script: Path, *words: str, processes: int = 1, **env: str) -> list[int]:
        """The statuses of a script, in one process or in several that torch joins; they say all in `log`."""
        ranks: list[dict[str, str]] = [{}]
        if processes > 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = str(free.getsockname()[1])
            shared = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
            shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            ranks = [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
        pids = [self.start([str(script), *words], script.parent, [], {**env, **rank}) for rank in ranks]
        return [self.wait(pid) for pid in pids]

    def _ask(self, order: dict[str, Any]) -> int:
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def serve() -> None:
    mains = {stage: import_module(f"storyforge.{stage}.stage").main for stage in STAGES}
    keys = import_module("storyforge.train.keys")
    packages = keys.packages()
    keys.packages = lambda: packages  # hundreds of files, which each stage would read again
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = os.waitstatus_to_exitcode(os.waitpid(order["wait"], 0)[1])
        else:
            answer = os.fork() or stage(mains, **order)
        print(answer, flush=True)


def stage(mains: Mapping[str, Callable], words: list[str], cwd: str, faults: list[Fault], env: dict) -> None:
    from storyforge.core import launch

    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # it would be ignored under nohup
        os.setsid()
        os.chdir(cwd)
        os.environ.update(env)
        for name, arguments in {0: os.devnull, 1: "log", 2: "log"}.items():
            os.dup2(os.open(arguments, os.O_RDWR | os.O_CREAT | os.O_APPEND), name)
        for name, *arguments in faults:
            FAULTS[name](*arguments)
        sys.argv = words
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python has it when it starts a stage
        if words[0] in mains:
            launch.launch(mains[words[0]])
        else:
            runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def each_disk_call(then: Callable[[int], None], names: Sequence[str] = DISK) -> None:
    """Call `then` with 1, 2, 3 … before each of this process's calls to the disk."""
    calls = 0

    def watched(call):
        def calling(*args, **kwargs):
            nonlocal calls
            calls += 1
            then(calls)
            return call(*args, **kwargs)

        return calling

    for name in names:
        setattr(os, name, watched(getattr(os, name)))


def die_at(number: int) -> None:
    """kill -9 instead of that call to the disk."""
    each_disk_call(lambda calls: calls == number and os.kill(os.getpid(), signal.SIGKILL))


def full_at(number: int) -> None:
    """From that call on, no file can be made to last."""

    def fail(calls: int) -> None:
        if calls >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    each_disk_call(fail, ["fsync"])


def small_files(size: int) -> None:
    """No file may be larger than that many bytes."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def stop_at(number: int, what: int) -> None:
    """A signal instead of that call to the disk."""
    each_disk_call(lambda calls: calls == number and os.kill(os.getpid(), what))


def without(module: str, name: str, instead: str) -> None:
    """A safeguard is gone; `instead` is an expression."""
    setattr(import_module(module), name, eval(instead, vars(import_module(module))))


FAULTS = {fault.__name__: fault for fault in (die_at, full_at, small_files, stop_at, without)}


if __name__ == "__main__":
    serve()
