"""The processes of one run, one a GPU: started here, their shares of the work, what they found together."""

import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.distributed_c10d import _get_default_store
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from storyforge.core.engine_file import engine
from storyforge.core.errors import UserError
from storyforge.core.launch import answering, end_with_parent, launch

MAX_RESTARTS = 3
SAVING_S = 600  # for the processes to end a step and save it, once they were asked to stop
STOPPED = {128 + signal.SIGTERM, 128 + signal.SIGINT}
ASK_EVERY_S = 0.2
Batches = TypeVar("Batches", bound=Sequence)
Found = dict[str, dict[Any, Any]]


def launch_all(main: Callable[..., dict[str, Any] | None]) -> None:
    """`launch(main)` in every process of the run: on several GPUs they are started here.

    Where torchrun has started them, or there is one GPU or none, it is this process.
    """
    with answering():
        count = 1 if "RANK" in os.environ else _wanted()
        if count > 1:
            end_with_parent()
            _start(count)
            return
    launch(main)


def own(batches: Batches) -> Batches:
    """Those of the batches that are this process's to do."""
    state = PartialState()
    return batches[state.process_index :: state.num_processes]


def together(found: Found) -> Found:
    """Part → key → value, from all processes."""
    each = gather_object([found])
    return {part: {key: one[part][key] for one in each for key in one[part]} for part in found}


def first_alone(name: str, do: Callable[[], Any]) -> None:
    """`do()` in the first process; the others wait, and raise the UserError that it raised.

    `name` is of this one call.
    """
    state = PartialState()
    if state.num_processes == 1:
        do()
        return
    # They ask a store, since a barrier of GPUs gives up after ten minutes; again and again, so that a signal
    # can end them. A new start of all has another store.
    store = _get_default_store()
    if state.is_main_process:
        try:
            do()
        except UserError as error:
            store.set(name, str(error))
            raise
        store.set(name, "")
    while not store.check([name]):
        time.sleep(ASK_EVERY_S)
    if said := store.get(name).decode():
        raise UserError(said)


def _wanted() -> int:
    asked, there = engine().gpus, torch.cuda.device_count()
    if asked and asked > max(1, there) and os.environ.get("STORYFORGE_ALLOW_CPU") != "1":
        raise UserError(
            f"engine.yaml: gpus = {asked}, and torch finds {there}: lower it, or leave it out "
            "to take all there are; STORYFORGE_ALLOW_CPU=1 starts so many processes on a CPU"
        )
    return asked or max(1, there)


def _start(count: int) -> None:
    """This very command, in `count` processes, anew from the last checkpoint where one of them is killed.

    torchrun's agent watches them. Its own restarts are off: it would begin again, too, what a user's mistake
    or a stop signal has ended.
    """
    logging.disable(logging.ERROR)  # the agent's remarks: what matters of them is said here in a line
    try:
        for left in reversed(range(MAX_RESTARTS + 1)):
            try:
                return _run(count)
            except ChildFailedError as error:
                said = _ended(list(error.failures.items()), count)
            if left:
                print(f"{said}: all begin again, at most {left} times more", file=sys.stderr)
    except SignalException as stop:  # the agent has handed it on, and waited
        raise SystemExit(128 + stop.sigval) from None
    raise UserError(f"{said}, after {MAX_RESTARTS} restarts: what the processes said stands above")


def _run(count: int) -> None:
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",  # a free port
        local_addr="localhost",
        max_restarts=0,
        shutdown_timeout=SAVING_S,
        signals_to_handle="SIGTERM,SIGINT",  # not SIGHUP, which `nohup` has set aside
    )
    elastic_launch(config, sys.executable)(*sys.orig_argv[1:])


def _ended(failures: Sequence[tuple[int, ProcessFailure]], count: int) -> str:
    """How the first of them ended, where to begin again may help; else this process ends in the same way."""
    for _, failure in failures:
        if os.path.exists(failure.error_file):
            raise UserError(failure.message)
    rank, first = failures[0]  # those that ended by themselves come before those that the agent ended then
    status = first.exitcode if first.exitcode >= 0 else 128 - first.exitcode
    if status in STOPPED:
        raise SystemExit(status)
    how = first.signal_name() if first.exitcode < 0 else f"status {status}"
    return f"process {rank} of {count} ended with {how}"
