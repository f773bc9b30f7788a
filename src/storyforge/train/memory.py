"""Training that halves what goes through the model at once when memory runs out.

The batch of a step stays as it is: only the order of summation, and so the last bits, depend on the budget.
It is noted in the work directory, so that a resumed run cuts its batches as before.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from accelerate.utils import broadcast_object_list
from peft import set_peft_model_state_dict
from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import write_json
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded
from storyforge.model.loading import ModelParams, adapter_weights
from storyforge.train.checkpoints import newest
from storyforge.train.footprint import kernel_kills
from storyforge.train.loop import Run, train_adapter
from storyforge.train.probe import fitting, out_of_memory, release, too_large, trainable
from storyforge.train.schedule import TrainParams

NOTE = "memory.json"
RUNNING = "running"  # there while a process trains: kill -9 leaves it
MOST_KILLS = 2  # for memory, at one checkpoint; then the budget is halved


def trained(
    train: Sequence[Encoded],
    val: Sequence[Encoded],
    model_params: ModelParams,
    params: TrainParams,
    *,
    work: Path,
    log: Callable[[int, dict[str, float]], None],
) -> Run:
    """A fresh adapter after `train_adapter`, with as many tokens at once as fit; `params` of the run say it.

    Out of memory, it goes on from the newest checkpoint with half as many; UserError where a single story is
    too much already.
    """
    longest = max(len(row.ids) for row in (*train, *val))
    budget = _agreed_budget(train, longest, model_params, params, work=work)
    with _running(work):
        model = trainable(model_params, params)
        fresh = adapter_weights(model)
        while True:
            cut = params.model_copy(update={"micro_batch_tokens": budget})
            try:
                return train_adapter(model, train, val, cut, accelerator(model_params), work=work, log=log)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            budget = _halved(work, budget, longest, "out of memory")
            if _processes() > 1:  # the others wait for this one's gradient
                raise UserError("out of memory in one of several processes: run the same command again")
            set_peft_model_state_dict(model, fresh)  # where there is no checkpoint yet
            model.zero_grad()
            release()


def note_budget(work: Path, budget: int, **kills: int) -> None:
    """What the next process of this run begins with."""
    write_json(work / NOTE, {"micro_batch_tokens": budget, **kills})


def _agreed_budget(
    train: Sequence[Encoded], longest: int, model_params: ModelParams, params: TrainParams, *, work: Path
) -> int:
    """One process of several finds it, the others take it over."""
    if _processes() == 1:
        return _first_budget(train, longest, model_params, params, work=work)
    agreed: list[int | None] = [None]
    if accelerator(model_params).is_main_process:
        agreed = [_first_budget(train, longest, model_params, params, work=work)]
    return broadcast_object_list(agreed)[0]


def _first_budget(
    train: Sequence[Encoded], longest: int, model_params: ModelParams, params: TrainParams, *, work: Path
) -> int:
    """What fits; in a run that goes on, what was noted, halved where it keeps being killed for memory.

    A kill counts only where Linux has meanwhile killed something for memory: any other may happen as often as
    it likes without a change of bits.
    """
    try:
        noted = json.loads((work / NOTE).read_bytes())
        budget, killed = noted["micro_batch_tokens"], (noted.get("kills", 0), noted.get("step"))
    except (OSError, ValueError, KeyError):
        budget = fitting(train, model_params, params)
        note_budget(work, budget)
        return budget
    if not _killed_for_memory(work):
        return budget
    checkpoint = newest(work)
    step = int(checkpoint.name.removeprefix("step-")) if checkpoint else 0
    kills = killed[0] + 1 if killed[1] == step else 1
    if kills < MOST_KILLS:
        note_budget(work, budget, kills=kills, step=step)
        return budget
    return _halved(work, budget, longest, f"killed for memory {kills} times at step {step}")


def _halved(work: Path, budget: int, longest: int, what: str) -> int:
    """Half the budget, noted; UserError where the longest story goes alone already."""
    if budget <= longest:
        raise too_large(longest)
    note_budget(work, budget // 2)
    tqdm.write(f"{what} with {budget} tokens at once: going on from the last checkpoint with {budget // 2}")
    return budget // 2


@contextmanager
def _running(work: Path) -> Iterator[None]:
    """Leaves a mark of this process that only a kill lets stand."""
    mark = work / RUNNING
    with suppress(OSError):  # no more than a help
        mark.write_text(str(kernel_kills()))
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _killed_for_memory(work: Path) -> bool:
    """Whether the process before was killed, and Linux has killed for memory since that one began."""
    now = kernel_kills()
    try:
        return now is not None and now > int((work / RUNNING).read_text())
    except (OSError, ValueError):
        return False


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))
