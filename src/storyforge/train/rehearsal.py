"""What a training run will cost, from a few of its own steps: trained for real, and thrown away."""

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache

from storyforge.core.errors import UserError
from storyforge.model.bases import base_config
from storyforge.model.cuts import micro_batches
from storyforge.model.device import machine_class
from storyforge.model.encoding import Encoded, singly
from storyforge.model.likelihood import add_gradients
from storyforge.model.memory import out_of_memory
from storyforge.model.params import ModelParams
from storyforge.train.checkpoints import newest
from storyforge.train.footprint import multiplied
from storyforge.train.loop import train
from storyforge.train.params import TrainParams
from storyforge.train.run import Run, trainable
from storyforge.train.schedule import batches
from storyforge.train.stage import fresh_model
from storyforge.train.step import losses

VALIDATED = 8  # stories


@dataclass(frozen=True, slots=True)
class Costs:
    """Of this machine, for this model and these stories."""

    machine: dict[str, Any]
    micro_batch_tokens: int
    multiplied_parameters: int  # what a token goes through: layers and head
    trainable_parameters: int
    startup_s: float  # to load the model, and what the first step takes longer than others
    token_s: float  # of training; mean over the steps
    validation_token_s: float
    checkpoint_s: float
    peak_memory_bytes: int  # of the GPU where there is one, else of the process
    adapter_bytes: int
    checkpoint_bytes: int
    base_bytes: int


def rehearse(
    stories: Sequence[Encoded],
    val: Sequence[Encoded],
    model_params: ModelParams,
    params: TrainParams,
    *,
    steps: int,
) -> Costs:
    """Of the first `steps` steps of the run, at most all; the first is warm-up where there are others."""
    plan, ends = batches(stories, params), {}  # ends: step → when it ended
    begin = time.perf_counter()
    steps = min(steps, len(plan))
    few, first_ones = params.model_copy(update={"checkpoint_every": steps}), map(singly, plan[:steps])

    def note(step: int, _: dict[str, float]) -> None:
        ends[step] = time.perf_counter()

    with TemporaryDirectory() as folder:
        model, work = fresh_model(model_params, params), Path(folder)
        run = train(model, list(first_ones), [], model_params, few, work=work, log=note)
        checkpoint_s = time.perf_counter() - ends[run.state.step]
        checkpoint = newest(work)
        checkpoint_bytes, adapter_bytes = size(checkpoint), size(checkpoint / "best.safetensors")
    first = sum(len(row.ids) for row in plan[0])
    since, tokens = (begin, first) if run.state.step == 1 else (ends[1], run.state.tokens - first)
    token_s = (ends[run.state.step] - since) / tokens
    validation_token_s, rows = 0.0, val[:VALIDATED]
    if rows:
        mark = time.perf_counter()
        losses(run.model, singly(rows), 2 * run.params.micro_batch_tokens, run.accelerator)
        validation_token_s = (time.perf_counter() - mark) / sum(len(row.ids) for row in rows)
    return Costs(
        machine=machine_class(model_params),
        multiplied_parameters=multiplied(base_config(model_params)),
        trainable_parameters=sum(weight.numel() for weight in trainable(run.model)),
        startup_s=max(0.0, ends[1] - begin - first * token_s),
        token_s=token_s,
        validation_token_s=validation_token_s,
        micro_batch_tokens=_fitting(run, plan),
        peak_memory_bytes=_peak_memory_bytes(),
        checkpoint_s=checkpoint_s,
        adapter_bytes=adapter_bytes,
        checkpoint_bytes=checkpoint_bytes,
        base_bytes=size(Path(run.model.get_base_model().name_or_path)),
    )


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


def heaviest(cuts: Sequence[list[Encoded]]) -> list[list[Encoded]]:
    """The micro-batches that need most memory: by their tokens, and by attention's squares."""
    most = [max(cuts, key=lambda cut: len(cut) * len(cut[0].ids) ** power) for power in (2, 1)]
    return most[:1] if most[0] is most[1] else most


def _fitting(run: Run, plan: Sequence[Sequence[Encoded]]) -> int:
    """The budget, halved until the heaviest micro-batches of the whole run can be trained on."""
    budget, longest = run.params.micro_batch_tokens, max(len(row.ids) for rows in plan for row in rows)
    while True:
        try:
            for cut in heaviest([cut for rows in plan for cut in micro_batches(run.model, rows, budget)]):
                add_gradients(run.model.train(), cut, 1e-6, run.accelerator)
            return budget
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        if budget <= longest:
            raise UserError(f"a story of {longest} tokens does not fit into memory: lower train.max_tokens")
        budget //= 2
        run.model.zero_grad()
        clear_device_cache(garbage_collection=True)


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
