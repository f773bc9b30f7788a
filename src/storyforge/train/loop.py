"""The training loop: steps, validations and checkpoints, whatever the objective."""

import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from accelerate.utils import gather_object
from peft import PeftModel
from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.launch import first_process
from storyforge.model.cuda import repeatable
from storyforge.model.device import accelerator
from storyforge.model.encoding import Item, longest
from storyforge.model.loading import adapter_weights
from storyforge.model.memory import out_of_memory
from storyforge.model.objectives import Objective, sft
from storyforge.model.params import ModelParams
from storyforge.train import step
from storyforge.train.checkpoints import save
from storyforge.train.memory import Budget
from storyforge.train.run import Run, agreed, begun
from storyforge.train.schedule import LoopParams

Figures = dict[str, float]
Log = Callable[[int, Figures], None]  # step, figures


class Guard(Protocol):
    """Ends a run that loses what its adapter could do before."""

    def measure(self, run: Run) -> Figures:
        """More figures of a validation."""

    def crossed(self, before: Figures, now: Figures) -> str | None:
        """The bound that was crossed since the validation before the first step."""


def train(
    model: PeftModel,
    plan: Sequence[Sequence[Item]],
    val: Sequence[Item],
    model_params: ModelParams,
    params: LoopParams,
    *,
    work: Path,
    log: Log,
    objective: Objective = sft,
    compared: Sequence[Item] = (),
    guard: Guard | None = None,
) -> Run:
    """Train from the newest valid checkpoint in `work`, or from the start; `best` is the adapter to publish.

    The best is that of the lowest validation loss; with a guard, the last that crossed no bound; without
    either, the last. Of those `compared` the NLLs before the first step are kept for the objective. UserError
    on a loss that is not finite, or an item too large. SIGTERM, SIGINT: status 143 or 130 after a saved step.
    """
    fresh, run = adapter_weights(model), None
    with (
        Budget(work, params, _widest(plan, val)) as budget,
        _stop_signals() as stopped,
        repeatable(),
        tqdm(total=len(plan), unit="step", disable=None if first_process() else True) as bar,
    ):
        while True:
            try:
                if run is None:
                    cut = params.model_copy(update={"micro_batch_tokens": agreed(budget.tokens)})
                    run = begun(model, fresh, accelerator(model_params), cut, objective, work=work)
                    bar.n = bar.initial = run.state.step
                    if run.state.step == 0:
                        _measure_start(run, compared, val, log, guard)
                if _finished(run, plan):
                    return run
                _go_on(run, plan, bar, log)
                if (last := run.state.step == len(plan)) or run.state.step % params.validate_every == 0:
                    _validate(run, val, log, guard)
                asked = max(gather_object([stopped()]))  # whichever process it was told to
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


def _widest(plan: Sequence[Sequence[Item]], val: Sequence[Item]) -> int:
    """Tokens that must go through the model at once."""
    return max(len(item) * longest(item) for items in (*plan, val) for item in items)


def _measure_start(
    run: Run, compared: Sequence[Item], val: Sequence[Item], log: Log, guard: Guard | None
) -> None:
    """Keep the NLLs that the writer gives those items now; the first validation."""
    if compared:
        nlls = iter(step.losses(run.model, compared, 2 * run.params.micro_batch_tokens, run.accelerator))
        run.state.reference = {item[0].id: [next(nlls) for _ in item] for item in compared}
    _validate(run, val, log, guard)


def _validate(run: Run, val: Sequence[Item], log: Log, guard: Guard | None) -> None:
    """Measure, and keep the adapter if it is good; a resumed run has measured its step already."""
    state, budget = run.state, 2 * run.params.micro_batch_tokens
    if not val:
        state.best_step, run.best = state.step, adapter_weights(run.model)
        return
    if state.val and state.val[-1]["step"] == state.step:
        return
    figures = step.measured(run.model, val, run.objective, budget, run.accelerator, reference=state.reference)
    figures |= guard.measure(run) if guard else {}
    if odd := [f"{name} {value}" for name, value in figures.items() if not math.isfinite(value)]:
        where = f"validation after step {state.step}: {', '.join(odd)}"
        raise UserError(f"{where}: lower {run.params.section}.learning_rate")
    state.val.append({"step": state.step, **figures})
    log(state.step, {f"val_{name}": value for name, value in figures.items()})
    good = figures["loss"] < state.best_loss
    if guard and state.step:
        state.stopped = agreed(guard.crossed(state.val[0], state.val[-1]))
        good = not state.stopped
    if good:
        state.best_loss, state.best_step, run.best = figures["loss"], state.step, adapter_weights(run.model)


def _finished(run: Run, plan: Sequence[object]) -> bool:
    """All steps done, a guard's bound crossed, or `patience` validations without a lower loss."""
    state = run.state
    if state.step >= len(plan) or state.stopped:
        return True
    if run.params.patience is None or not state.val:
        return False
    lowest = min(state.val, key=lambda row: row["loss"])
    return len(state.val) - 1 - state.val.index(lowest) >= run.params.patience


def _go_on(run: Run, plan: Sequence[Sequence[Item]], bar: tqdm, log: Log) -> None:
    """Take the next step, and show it."""
    begin, tokens = time.perf_counter(), run.state.tokens
    step.take(run, plan[run.state.step], len(plan))
    rate, figures = (run.state.tokens - tokens) / (time.perf_counter() - begin), run.state.train[-1]
    log(run.state.step, {**figures, "tokens_per_second": rate})
    bar.update()
    bar.set_postfix(loss=f"{figures['loss']:.3f}", tokens_s=f"{rate:.0f}")


def _checkpoint(run: Run, work: Path) -> None:
    if run.accelerator.is_main_process:
        save(work, run.state.step, run.write)
    run.accelerator.wait_for_everyone()


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
