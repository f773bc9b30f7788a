"""One optimisation step, however its items are cut to fit the machine, and its figures without a step."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator

from storyforge.core.errors import UserError
from storyforge.model.cuts import item_batches
from storyforge.model.encoding import Item
from storyforge.model.likelihood import add_gradients, story_nll
from storyforge.model.objectives import Objective, Whole, sft
from storyforge.train.run import Run, trainable
from storyforge.train.schedule import learning_rate
from storyforge.train.sharding import own_part

Reference = Mapping[str, Sequence[float]]  # item's id → NLLs of its rows before the first step


def take(run: Run, items: Sequence[Item], steps: int) -> None:
    """Step `run` on by these items; UserError where loss or gradient is not finite."""
    params, state = run.params, run.state
    if not run.model.training:  # walking a thousand modules takes 3 % of a small step
        run.model.train()
    # Dropout's noise depends on the step alone, so that a resumed run draws the same.
    noise = hashlib.blake2b(f"{params.seed}:{state.step}".encode(), digest_size=6)
    torch.manual_seed(int.from_bytes(noise.digest()))
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, steps, params)
    figures = gradients(
        run.model,
        items,
        run.objective,
        params.micro_batch_tokens,
        run.accelerator,
        reference=state.reference,
    )
    limit = math.inf if params.max_gradient_norm is None else params.max_gradient_norm
    norm = run.accelerator.clip_grad_norm_(trainable(run.model), limit)  # inf: only measured
    scaler = run.accelerator.scaler  # with fp16 an infinite gradient lowers the scale, down to 1
    finite = math.isfinite(figures["loss"]) and (math.isfinite(norm) or scaler and scaler.get_scale() >= 1)
    if not finite:
        ids = ", ".join(item[0].id for item in items)
        where = f"step {state.step + 1}: loss {figures['loss']}, gradient norm {norm} (stories {ids})"
        raise UserError(f"{where}: lower {params.section}.learning_rate")
    run.optimizer.step()
    run.optimizer.zero_grad()
    rows = [row for item in items for row in item]
    state.step += 1
    state.stories += len(rows)
    state.tokens += sum(len(row.ids) for row in rows)
    state.reply_tokens += sum(row.reply_tokens for row in rows)
    figures |= {"learning_rate": run.optimizer.param_groups[0]["lr"], "gradient_norm": float(norm)}
    state.train.append({"step": state.step, **figures})


def gradients(
    model,
    items: Sequence[Item],
    objective: Objective,
    max_tokens: int,
    accelerator: Accelerator,
    *,
    reference: Reference | None = None,
) -> dict[str, float]:
    """Add the gradient of the objective's mean over the items to the adapter; returns its figures.

    Each story's factor is of the whole step, so neither the micro-batches nor the number of processes changes
    the step, except in the order of summation.
    """
    whole, total = _whole(items, reference), Counter()
    for cut, counts in own_part(item_batches(model, items, max_tokens), accelerator):

        def weigh(nlls: list[float], cut=cut, counts=counts) -> list[float]:
            return [counts * factor for factor in objective(cut, nlls, whole)[0]]

        # A factor that is known before is applied where the gradient is formed, in float32.
        known = counts / whole.reply_tokens if objective is sft else weigh
        nlls = add_gradients(model, [row for item in cut for row in item], known, accelerator)
        for name, value in objective(cut, nlls, whole)[1].items():
            total[name] += counts * value
    if accelerator.num_processes > 1:
        _add_up(trainable(model), accelerator)
        names = list(objective(items[:1], [0.0] * len(items[0]), whole)[1])  # a process may have had no item
        summed = _over_processes([total[name] for name in names], accelerator)
        return dict(zip(names, summed, strict=True))
    return dict(total)


def _add_up(weights: Sequence[torch.nn.Parameter], accelerator: Accelerator) -> None:
    """Each gradient becomes its sum over the processes, in one message for all of them."""
    own = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
    whole = accelerator.reduce(torch.cat([grad.flatten() for grad in own]), "sum")
    for weight, part in zip(weights, whole.split([w.numel() for w in weights]), strict=True):
        weight.grad = part.view_as(weight)


def measured(
    model,
    items: Sequence[Item],
    objective: Objective,
    max_tokens: int,
    accelerator: Accelerator,
    *,
    reference: Reference | None = None,
) -> dict[str, float]:
    """The objective's figures, its loss among them: the same for every way to batch the items."""
    nlls = losses(model, items, max_tokens, accelerator)
    return objective(items, nlls, _whole(items, reference))[1]


@torch.no_grad()
def losses(model, items: Sequence[Item], max_tokens: int, accelerator: Accelerator) -> list[float]:
    """The NLL of each row, in nats, item after item."""
    model.eval()
    rows = {(item[0].id, number): 0.0 for item in items for number in range(len(item))}
    for cut, counts in own_part(item_batches(model, items, max_tokens), accelerator):
        with accelerator.autocast():
            found = iter(story_nll(model, [row for item in cut for row in item]))
        for item in cut:
            for number in range(len(item)):
                rows[item[0].id, number] += counts * next(found)
    return _over_processes(list(rows.values()), accelerator)


def _over_processes(values: list[float], accelerator: Accelerator) -> list[float]:
    """The sum over the processes of each."""
    if accelerator.num_processes == 1:
        return values
    own = torch.tensor(values, dtype=torch.float32, device=accelerator.device)
    return accelerator.reduce(own, "sum").tolist()


def _whole(items: Sequence[Item], reference: Reference | None) -> Whole:
    return Whole(len(items), sum(row.reply_tokens for item in items for row in item), reference or {})
