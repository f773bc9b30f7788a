"""The training loop: one step is a global batch of stories, however it is cut to fit the machine."""

import hashlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

from storyforge.core.errors import UserError
from storyforge.model.cuda import repeatable
from storyforge.model.device import accelerator
from storyforge.model.encoding import Encoded, micro_batches
from storyforge.model.likelihood import add_gradients, story_nll
from storyforge.model.loading import adapter_weights
from storyforge.model.params import ModelParams
from storyforge.train.checkpoints import newest, save
from storyforge.train.memory import Budget, out_of_memory
from storyforge.train.schedule import LoopParams, batches, learning_rate
from storyforge.train.sharding import own_part, shard

T = TypeVar("T")
Log = Callable[[int, dict[str, float]], None]  # step, figures


@dataclass
class State:
    """What a checkpoint holds besides weights and optimizer."""

    step: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    train: list[dict[str, float]] = field(default_factory=list)
    val: list[dict[str, float]] = field(default_factory=list)
    stories: int = 0
    tokens: int = 0
    reply_tokens: int = 0
    # Step → tokens at once from it on: their cuts are part of the bits. Steps are text, as in JSON.
    micro_batch_tokens: dict[str, int] = field(default_factory=dict)


@dataclass
class Run:
    """A run in progress: the model is trained in place, `best` follows it."""

    model: PeftModel
    optimizer: Any
    accelerator: Accelerator
    params: LoopParams
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


def train(
    model: PeftModel,
    stories: Sequence[Encoded],
    val: Sequence[Encoded],
    model_params: ModelParams,
    params: LoopParams,
    *,
    work: Path,
    log: Log,
) -> Run:
    """Train from the newest valid checkpoint in `work`, or from the start; `best` is the adapter to publish.

    The best adapter is that of the lowest validation loss; without validation stories, the last. `params` of
    the run hold the tokens at once that the memory allowed. UserError on a loss that is not finite, and where
    a single story is too large. SIGTERM and SIGINT end it after a saved step, with status 143 or 130.
    """
    plan, fresh, run = batches(stories, params), adapter_weights(model), None
    with (
        Budget(work, params.micro_batch_tokens, max(len(row.ids) for row in (*stories, *val))) as budget,
        _stop_signals() as stopped,
        repeatable(),
        tqdm(total=len(plan), unit="step", disable=None) as bar,
    ):
        while True:
            try:
                if run is None:
                    cut = params.model_copy(update={"micro_batch_tokens": _agreed(budget.tokens)})
                    run = _begun(model, fresh, accelerator(model_params), cut, work)
                    bar.n = bar.initial = run.state.step
                    if run.state.step == 0:
                        _validate(run, val, log)
                if _finished(run, plan):
                    return run
                begin, tokens = time.perf_counter(), run.state.tokens
                _step(run, plan[run.state.step], len(plan))
                _show(run, (run.state.tokens - tokens) / (time.perf_counter() - begin), bar, log)
                last = run.state.step == len(plan)
                if last or run.state.step % params.validate_every == 0:
                    _validate(run, val, log)
                asked = _agreed(stopped())
                if last or asked or run.state.step % params.checkpoint_every == 0:
                    _checkpoint(run, work)
                if asked:
                    raise SystemExit(128 + asked)
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                run = None
            if run is None:  # after the handler: until it ends, the error holds the failed step's tensors
                budget.recover()


def _begun(
    model: PeftModel, fresh: dict[str, Tensor], accelerator: Accelerator, params: LoopParams, work: Path
) -> Run:
    """The run as its newest checkpoint left it, else at step 0, whatever an attempt before did to the model.

    Optimiser, accelerator and its scaler are new: nothing of a failed step is left in them.
    """
    set_peft_model_state_dict(model, fresh)
    model.zero_grad()
    shard(model, accelerator)
    rates = {"lr": params.learning_rate, "weight_decay": params.weight_decay}
    optimizer = torch.optim.AdamW(trainable(model), **rates, fused=accelerator.device.type != "mps")
    run = Run(
        model, accelerator.prepare_optimizer(optimizer), accelerator, params, State(), adapter_weights(model)
    )
    if checkpoint := _agreed(newest(work) if accelerator.is_main_process else None):
        run.read(checkpoint)
        tqdm.write(f"resumed from step {run.state.step}")
    cuts = run.state.micro_batch_tokens
    if params.micro_batch_tokens not in list(cuts.values())[-1:]:
        cuts[str(run.state.step + 1)] = params.micro_batch_tokens
    return run


def trainable(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def gradients(
    model: PeftModel, rows: Sequence[Encoded], params: LoopParams, accelerator: Accelerator
) -> float:
    """Add the gradient of the batch's mean NLL a reply token to the adapter; returns that mean, in nats.

    The sum over the batch is divided once, by all its reply tokens, so neither the micro-batches nor the
    number of processes changes the step, except in the order of summation.
    """
    tokens = sum(row.reply_tokens for row in rows)
    cuts = micro_batches(rows, params.micro_batch_tokens)
    total = torch.zeros((), dtype=torch.float64)
    for cut, counts in own_part(cuts, accelerator):
        total += counts * sum(add_gradients(model, cut, counts / tokens, accelerator))
    if accelerator.num_processes > 1:
        for weight in trainable(model):
            grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            weight.grad = accelerator.reduce(grad, "sum")
        total = accelerator.reduce(total.to(accelerator.device, torch.float32), "sum").cpu()
    return total.item() / tokens


@torch.no_grad()
def mean_nll(model, rows: Sequence[Encoded], max_tokens: int, accelerator: Accelerator) -> float:
    """Token-weighted NLL of the replies, in nats a token: the same for every way to batch them."""
    model.eval()
    total = torch.zeros(1, dtype=torch.float64)
    for cut, counts in own_part(micro_batches(rows, max_tokens), accelerator):
        with accelerator.autocast():
            total += counts * sum(story_nll(model, cut))
    if accelerator.num_processes > 1:
        total = accelerator.reduce(total.to(accelerator.device, torch.float32), "sum").cpu()
    return total.item() / sum(row.reply_tokens for row in rows)


def _step(run: Run, rows: Sequence[Encoded], steps: int) -> None:
    params, state = run.params, run.state
    if not run.model.training:  # walking a thousand modules takes 3 % of a small step
        run.model.train()
    # Dropout's noise depends on the step alone, so that a resumed run draws the same.
    noise = hashlib.blake2b(f"{params.seed}:{state.step}".encode(), digest_size=6)
    torch.manual_seed(int.from_bytes(noise.digest()))
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, steps, params)
    loss = gradients(run.model, rows, params, run.accelerator)
    limit = math.inf if params.max_gradient_norm is None else params.max_gradient_norm
    norm = run.accelerator.clip_grad_norm_(trainable(run.model), limit)  # inf: only measured
    scaler = run.accelerator.scaler  # with fp16 an infinite gradient lowers the scale, down to 1
    finite = math.isfinite(loss) and (math.isfinite(norm) or scaler and scaler.get_scale() >= 1)
    if not finite:
        ids = ", ".join(row.id for row in rows)
        where = f"step {state.step + 1}: loss {loss}, gradient norm {norm} (stories {ids})"
        raise UserError(f"{where}: lower train.learning_rate")
    run.optimizer.step()
    run.optimizer.zero_grad()
    state.step += 1
    state.stories += len(rows)
    state.tokens += sum(len(row.ids) for row in rows)
    state.reply_tokens += sum(row.reply_tokens for row in rows)
    figures = {"learning_rate": run.optimizer.param_groups[0]["lr"], "gradient_norm": float(norm)}
    state.train.append({"step": state.step, "loss": loss, **figures})


def _validate(run: Run, val: Sequence[Encoded], log: Log) -> None:
    """Measure, and keep the adapter if it is the best so far; a resumed run has measured its step already."""
    state = run.state
    if not val:
        state.best_step, run.best = state.step, adapter_weights(run.model)
        return
    if state.val and state.val[-1]["step"] == state.step:
        return
    loss = mean_nll(run.model, val, 2 * run.params.micro_batch_tokens, run.accelerator)
    state.val.append({"step": state.step, "loss": loss})
    log(state.step, {"val_loss": loss})
    if loss < state.best_loss:
        state.best_loss, state.best_step, run.best = loss, state.step, adapter_weights(run.model)


def _finished(run: Run, plan: Sequence[object]) -> bool:
    """All steps done, or `patience` validations without a better one."""
    since = [row for row in run.state.val if row["step"] > run.state.best_step]
    return run.state.step >= len(plan) or (
        run.params.patience is not None and len(since) >= run.params.patience
    )


def _show(run: Run, rate: float, bar: tqdm, log: Log) -> None:
    figures = run.state.train[-1]
    log(run.state.step, {**figures, "tokens_per_second": rate})
    bar.update()
    bar.set_postfix(loss=f"{figures['loss']:.3f}", tokens_s=f"{rate:.0f}")


def _checkpoint(run: Run, work: Path) -> None:
    if run.accelerator.is_main_process:
        save(work, run.state.step, run.write)
    run.accelerator.wait_for_everyone()


def _agreed(value: T) -> T:
    """What the main process found: all go on from one checkpoint, with one budget, and end after one step."""
    return broadcast_object_list([value])[0]


@contextmanager
def _stop_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that returns the signal that asked for an end, 0 if none has."""
    received = [0]

    def note(number: int, _: object) -> None:
        received.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: received[-1]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
