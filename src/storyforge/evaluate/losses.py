"""Losses of stories under both writers, and their difference with an interval."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

WRITERS = ("base", "tuned")


@dataclass(frozen=True, slots=True)
class Scored:
    """One story under two writers: summed NLLs in nats over the same reply tokens."""

    id: str
    source: str
    group: str
    tokens: int
    bytes: int
    base: float
    tuned: float


def per_token(scored: Sequence[Scored], writer: str) -> dict[str, float]:
    """Token-weighted loss in nats, perplexity, and bits a UTF-8 byte, which compares across tokenizers."""
    nll = math.fsum(getattr(story, writer) for story in scored)
    loss = nll / sum(story.tokens for story in scored)
    bits = nll / (math.log(2) * sum(story.bytes for story in scored))
    numbers = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}
    return {name: rounded(value) for name, value in numbers.items()}


def improvement(scored: Sequence[Scored], seed: int, draws: int = 2000) -> dict[str, float | None]:
    """Nats a token that tuning saves, with its interval: both writers read the same tokens."""
    saved = [(story.group, story.base - story.tuned, story.tokens) for story in scored]
    found = difference(saved, seed, draws)
    return {"nats_per_token": found.pop("value"), **found}


def difference(
    parts: Iterable[tuple[str, float, float]], seed: int, draws: int = 2000
) -> dict[str, float | None]:
    """Of (group, difference, weight) triples: the summed differences for each unit of weight, with a 95 %
    interval by a bootstrap over groups.

    Stories of one play or one prompt resemble each other, so resampling single stories would give an interval
    that is too narrow (Miller 2024, arXiv:2411.00640, section 2.2). With a handful of groups even this one
    is on the narrow side: `groups` stands beside it. One group says nothing of others: no interval.
    """
    by_group: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, value, weight in parts:
        by_group[group][0] += value
        by_group[group][1] += weight
    # (groups, 2): summed difference and summed weight. Sorted, so that the order of stories has no influence.
    sums = np.array([by_group[group] for group in sorted(by_group)])
    low = high = None
    if len(sums) > 1:
        # (draws, groups): each draw takes as many groups as there are, with replacement, whole ones only.
        drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
        # (draws, groups, 2) summed over the drawn groups. The ratio of the sums, not the mean of ratios:
        # a group counts by its weight, as it does in the value itself.
        values, weights = sums[drawn].sum(axis=1).T
        low, high = np.quantile(values / weights, [0.025, 0.975])
    value, weight = sums.sum(axis=0)
    found = {"value": value / weight, "low": low, "high": high, "groups": len(sums)}
    return {name: rounded(number) for name, number in found.items()}


def comparison(scored: Sequence[Scored], seed: int) -> dict[str, dict[str, float | None]]:
    """base, tuned and improvement of one set of stories."""
    return {
        **{writer: per_token(scored, writer) for writer in WRITERS},
        "improvement": improvement(scored, seed),
    }


def rounded(value: float | None) -> float | None:
    """Six digits after the point, short enough to read in a diff."""
    return value if value is None or isinstance(value, int) else round(float(value), 6)
