"""What training minimises: of each story's NLL a factor. The gradient is the sum of factor × the NLL's own.

An objective gets the items that go through the model at once, the NLLs of their rows in nats, and what it must
know of all items of the step. It returns a factor a row, and figures whose sums over the step are its means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from storyforge.model.encoding import Item

Weighed = tuple[list[float], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Whole:
    """Of all items of a step, or of a validation."""

    items: int
    reply_tokens: int
    reference: Mapping[str, Sequence[float]] = field(default_factory=dict)  # item's id → NLLs before training


Objective = Callable[[Sequence[Item], Sequence[float], Whole], Weighed]


def sft(items: Sequence[Item], nlls: Sequence[float], whole: Whole) -> Weighed:
    """Mean NLL a reply token."""
    return [1 / whole.reply_tokens] * len(nlls), {"loss": sum(nlls) / whole.reply_tokens}


def dpo(items: Sequence[Item], nlls: Sequence[float], whole: Whole, *, beta: float, nll: float) -> Weighed:
    """Direct preference optimisation (Rafailov et al. 2023, equation 7), and `nll` × that a chosen token.

    The second term is that of Pang et al. 2024 (arXiv:2404.19733). What is compared with is the writer as it was
    before the first step.
    """
    margins = []
    for chosen, _ in items:
        before, other = whole.reference[chosen.id]
        margins.append((beta, beta, beta * (before - other)))
    return _preferred(items, nlls, whole.items, margins, nll)


def simpo(
    items: Sequence[Item], nlls: Sequence[float], whole: Whole, *, beta: float, gamma: float
) -> Weighed:
    """Simple preference optimisation (Meng et al. 2024): NLLs a token, and a margin, without a reference."""
    margins = [(beta / one.reply_tokens, beta / two.reply_tokens, -gamma) for one, two in items]
    return _preferred(items, nlls, whole.items, margins, 0.0)


def _preferred(
    items: Sequence[Item],
    nlls: Sequence[float],
    count: int,
    margins: Sequence[tuple[float, float, float]],
    nll: float,
) -> Weighed:
    """-log σ(z) a pair, where z = -a · NLL of the chosen + b · that of the rejected + c, of (a, b, c) a pair."""
    factors, figures = [], dict.fromkeys(("loss", "margin", "accuracy", "chosen_loss"), 0.0)
    pairs = zip(items, nlls[::2], nlls[1::2], margins, strict=True)
    for (chosen, _), better, worse, (a, b, c) in pairs:
        z, own = c - a * better + b * worse, better / chosen.reply_tokens
        slope = (1 - math.tanh(z / 2)) / 2 / count  # σ(-z), without overflow
        factors += [a * slope + nll / chosen.reply_tokens / count, -b * slope]
        loss = max(-z, 0.0) + math.log1p(math.exp(-abs(z))) + nll * own
        for name, value in zip(figures, (loss, z, z > 0, own), strict=True):
            figures[name] += value / count
    return factors, figures
