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

from storyforge.model.device import machine_class
from storyforge.model.encoding import Encoded
from storyforge.model.likelihood import add_gradients
from storyforge.model.loading import ModelParams, base_config
from storyforge.train.checkpoints import newest
from storyforge.train.footprint import multiplied
from storyforge.train.loop import Run, mean_nll
from storyforge.train.memory import note_budget, trained
from storyforge.train.probe import fitting, heaviest
from storyforge.train.schedule import TrainParams, batches

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
    train: Sequence[Encoded],
    val: Sequence[Encoded],
    model_params: ModelParams,
    params: TrainParams,
    *,
    steps: int,
) -> Costs:
    """Of the first `steps` steps of the run, at most all; the first is warm-up where there are others."""
    plan = batches(train, params)
    begin = time.perf_counter()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        note_budget(work, fitting(train, model_params, params))
        run, ends = _begun(train, model_params, params, work=work, steps=min(steps, len(plan)))
        checkpoint_s = time.perf_counter() - ends[run.state.step]
        checkpoint = newest(work)
        checkpoint_bytes, adapter_bytes = size(checkpoint), size(checkpoint / "best.safetensors")
    first = sum(len(row.ids) for row in plan[0])
    alone = run.state.step == 1
    since, tokens = (begin, first) if alone else (ends[1], run.state.tokens - first)
    token_s = (ends[run.state.step] - since) / tokens
    validation_token_s = _validation_token_s(run, val)
    for cut in heaviest(plan, run.params.micro_batch_tokens):
        add_gradients(run.model, cut, 1e-6, run.accelerator)
    return Costs(
        machine=machine_class(model_params),
        micro_batch_tokens=run.params.micro_batch_tokens,
        multiplied_parameters=multiplied(base_config(model_params)),
        trainable_parameters=sum(weight.numel() for weight in run.best.values()),
        startup_s=max(0.0, ends[1] - begin - first * token_s),
        token_s=token_s,
        validation_token_s=validation_token_s,
        checkpoint_s=checkpoint_s,
        peak_memory_bytes=_peak_memory_bytes(),
        adapter_bytes=adapter_bytes,
        checkpoint_bytes=checkpoint_bytes,
        base_bytes=size(Path(run.model.get_base_model().name_or_path)),
    )


def size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(file.stat().st_size for file in files)


def _begun(
    train: Sequence[Encoded], model_params: ModelParams, params: TrainParams, *, work: Path, steps: int
) -> tuple[Run, dict[int, float]]:
    """The run after its first steps and a checkpoint, and when each step ended."""
    ends: dict[int, float] = {}

    def note(step: int, figures: dict[str, float]) -> None:
        ends[step] = time.perf_counter()

    few = params.model_copy(update={"max_steps": steps, "checkpoint_every": steps})
    return trained(train, [], model_params, few, work=work, log=note), ends


def _validation_token_s(run: Run, val: Sequence[Encoded]) -> float:
    if not val:
        return 0.0
    rows, begin = val[:VALIDATED], time.perf_counter()
    mean_nll(run.model, rows, 2 * run.params.micro_batch_tokens, run.accelerator)
    return (time.perf_counter() - begin) / sum(len(row.ids) for row in rows)


def _peak_memory_bytes() -> int:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
