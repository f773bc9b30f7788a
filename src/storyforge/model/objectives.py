"""What training minimises, as a factor a story: the gradient is the sum of factor × that of the story's NLL.

An objective gets some of a step's items, the NLLs of their rows, and what it must know of the whole step. It
returns a factor a row, and figures: their sums over the step are its means.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from storyforge.model.encoding import Item

Weighed = tuple[list[float], dict[str, float]]


@dataclass(frozen=True, slots=True)
class Whole:
    items: int
    reply_tokens: int
    reference: Mapping[str, Sequence[float]] = field(default_factory=dict)  # item's id → NLLs before training


Objective = Callable[[Sequence[Item], Sequence[float], Whole], Weighed]


def sft(items: Sequence[Item], nlls: Sequence[float], whole: Whole) -> Weighed:
    """Mean NLL a reply token."""
    return [1 / whole.reply_tokens] * len(nlls), {"loss": sum(nlls) / whole.reply_tokens}


def dpo(items: Sequence[Item], nlls: Sequence[float], whole: Whole, *, beta: float, nll: float) -> Weighed:
    """Rafailov et al. 2023, equation 7, and `nll` × the NLL a chosen token (Pang et al. 2024, equation 1)."""
    before = [whole.reference[chosen.id] for chosen, _ in items]
    margins = [(beta, beta, beta * (one - two)) for one, two in before]
    return _preferred(items, nlls, whole, margins, nll=nll)


def simpo(
    items: Sequence[Item], nlls: Sequence[float], whole: Whole, *, beta: float, gamma: float
) -> Weighed:
    """Meng et al. 2024, equation 6: NLLs a token and a margin, no reference."""
    margins = [(beta / one.reply_tokens, beta / two.reply_tokens, 0.0) for one, two in items]
    return _preferred(items, nlls, whole, margins, gamma=gamma)


def _preferred(items, nlls, whole: Whole, margins, *, nll: float = 0.0, gamma: float = 0.0) -> Weighed:
    """-log σ(margin - gamma) a pair; the margin is c - a × the chosen one's NLL + b × the other's."""
    factors, figures = [], dict.fromkeys(("loss", "margin", "accuracy", "chosen_loss"), 0.0)
    for (chosen, _), one, two, (a, b, c) in zip(items, nlls[::2], nlls[1::2], margins, strict=True):
        margin, own = c - a * one + b * two, one / chosen.reply_tokens
        z = margin - gamma
        slope = (1 - math.tanh(z / 2)) / 2 / whole.items  # σ(-z), without overflow
        factors += [a * slope + nll / chosen.reply_tokens / whole.items, -b * slope]
        loss = max(-z, 0.0) + math.log1p(math.exp(-abs(z))) + nll * own
        for name, value in zip(figures, (loss, margin, margin > 0, own), strict=True):
            figures[name] += value / whole.items
    return factors, figures
