"""One number for how well a text keeps the rules that a machine can check: no measure of quality."""

from collections.abc import Sequence
from dataclasses import dataclass

from storyforge.principles.checks import CHECKS, Corpus
from storyforge.principles.constitution import Principle, applying


@dataclass(frozen=True, slots=True)
class Scored:
    """`score`: the weighted mean of the checks, None without any; `checks`: each by name, guards among them."""

    score: float | None
    checks: dict[str, float]
    opportunities: dict[str, int]


def score(principles: Sequence[Principle], prompt: str, text: str, *, ended: bool, corpus: Corpus) -> Scored:
    """Of the principles that the prompt calls for; a check without an opportunity in the text counts nowhere."""
    found, weights, counts = {}, {}, {}
    for each in applying(principles, prompt):
        finding = CHECKS[each.check](prompt, text, ended, corpus) if each.check else None
        if finding is not None:
            found[each.check], weights[each.check] = finding.score, each.weight
            counts[each.check] = finding.opportunities
    total = sum(weights.values())
    mean = sum(found[name] * weight for name, weight in weights.items()) / total if total else None
    return Scored(mean, found, counts)
