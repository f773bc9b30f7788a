"""A run in progress: what a checkpoint holds of it, and how it begins, anew or from one."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from storyforge.model.loading import adapter_weights
from storyforge.model.objectives import Objective
from storyforge.train.checkpoints import newest
from storyforge.train.schedule import LoopParams
from storyforge.train.sharding import shard

T = TypeVar("T")


@dataclass
class State:
    """What a checkpoint holds besides weights and optimizer."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    stopped: str | None = None  # the guard that ended the run
    train: list[dict[str, float]] = field(default_factory=list)
    val: list[dict[str, float]] = field(default_factory=list)
    stories: int = 0
    tokens: int = 0
    reply_tokens: int = 0
    # Step → tokens at once from it on: their cuts are part of the bits. Steps are text, as in JSON.
    micro_batch_tokens: dict[str, int] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)  # likewise: how many there were
    # Item's id → NLLs of its rows before the first step; of the items that are compared with them.
    reference: dict[str, Sequence[float]] = field(default_factory=dict)


@dataclass
class Run:
    """The model is trained in place, `best` follows it."""

    model: PeftModel
    optimizer: Any
    accelerator: Accelerator
    params: LoopParams
    objective: Objective
    state: State
    best: dict[str, Tensor]
    resumed_tokens: int = 0  # those an earlier process trained on

    def write(self, directory: Path) -> None:
        save_file(adapter_weights(self.model), directory / "adapter.safetensors")
        save_file(self.best, directory / "best.safetensors")
        torch.save(self.optimizer.state_dict(), directory / "optimizer.pt")
        if self.accelerator.scaler is not None:
            torch.save(self.accelerator.scaler.state_dict(), directory / "scaler.pt")
        (directory / "state.json").write_text(json.dumps(asdict(self.state)))

    def read(self, directory: Path) -> None:
        set_peft_model_state_dict(self.model, load_file(directory / "adapter.safetensors"))
        self.best = load_file(directory / "best.safetensors")
        self.optimizer.load_state_dict(torch.load(directory / "optimizer.pt", weights_only=True))
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(torch.load(directory / "scaler.pt", weights_only=True))
        self.state = State(**json.loads((directory / "state.json").read_text()))
        self.resumed_tokens = self.state.tokens


def begun(
    model: PeftModel,
    fresh: dict[str, Tensor],
    accelerator: Accelerator,
    params: LoopParams,
    objective: Objective,
    *,
    work: Path,
) -> Run:
    """The run as its newest checkpoint left it, else at step 0, whatever an attempt before did to the model.

    Optimiser, accelerator and its scaler are new: nothing of a failed step is left in them.
    """
    set_peft_model_state_dict(model, fresh)
    model.zero_grad()
    shard(model, accelerator)
    rates = {"lr": params.learning_rate, "weight_decay": params.weight_decay}
    optimizer = torch.optim.AdamW(trainable(model), **rates, fused=accelerator.device.type != "mps")
    optimizer, best = accelerator.prepare_optimizer(optimizer), adapter_weights(model)
    run = Run(model, optimizer, accelerator, params, objective, State(), best)
    if checkpoint := agreed(newest(work) if accelerator.is_main_process else None):
        run.read(checkpoint)
        tqdm.write(f"resumed from step {run.state.step}")
    _note(run.state.micro_batch_tokens, run.state.step, params.micro_batch_tokens)
    _note(run.state.processes, run.state.step, accelerator.num_processes)
    return run


def _note(noted: dict[str, int], step: int, value: int) -> None:
    """That from the step after `step` on it is this value, if it was another before."""
    if value not in list(noted.values())[-1:]:
        noted[str(step + 1)] = value


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def agreed(value: T) -> T:
    """What the main process found: all go on from one checkpoint, with one budget, and end after one step."""
    return broadcast_object_list([value])[0]
