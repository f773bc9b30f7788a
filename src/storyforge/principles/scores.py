"""One number for how well a text keeps the rules that a machine can see: no measure of quality."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from storyforge.principles.checks import CHECKS
from storyforge.principles.constitution import Principle, applying
from storyforge.principles.corpus import Corpus


@dataclass(frozen=True, slots=True)
class Scored:
    """Only checks that had an opportunity; guards, of weight 0, are in `checks` and not in `score`."""

    score: float | None  # weighted mean of the checks, 0 to 1; None where no check weighs anything
    checks: dict[str, float]
    opportunities: dict[str, int] = field(default_factory=dict)  # what a mean over texts weighs a check with


def score(principles: Sequence[Principle], prompt: str, text: str, *, ended: bool, corpus: Corpus) -> Scored:
    """By the principles that the prompt calls for."""
    weights: dict[str, float] = {}
    for each in applying(principles, prompt):
        if each.check:
            weights[each.check] = weights.get(each.check, 0.0) + each.weight
    found = {name: CHECKS[name](prompt, text, ended, corpus) for name in weights}
    found = {name: finding for name, finding in found.items() if finding}
    total = sum(weights[name] for name in found)
    mean = sum(weights[name] * finding.score for name, finding in found.items()) / total if total else None
    return Scored(
        mean,
        {name: finding.score for name, finding in found.items()},
        {name: finding.opportunities for name, finding in found.items()},
    )
