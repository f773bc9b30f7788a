"""Numbers about stories, and how sure we are of them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


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
    return {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}


def improvement(scored: Sequence[Scored], seed: int, draws: int = 2000) -> dict[str, float | None]:
    """Nats a token that tuning saves, with its interval: both writers read the same tokens."""
    saved = [(story.group, story.base - story.tuned, story.tokens) for story in scored]
    found = difference(saved, seed, draws)
    return {"nats_per_token": found.pop("value"), **found}


def difference(
    parts: Iterable[tuple[str, float, float]], seed: int, draws: int = 2000
) -> dict[str, float | None]:
    """Sum of (group, difference, weight)'s differences a weight, with a 95 % interval: whole groups are drawn
    again, with replacement.

    Stories of one play or one prompt resemble each other, so resampling single stories would promise too
    much (Miller 2024, arXiv:2411.00640, section 2.2). With a handful of groups even this interval is on the
    narrow side: `groups` stands beside it. One group says nothing of others: no interval.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, value, weight in parts:
        sums[group][0] += value
        sums[group][1] += weight
    groups = np.array([sums[group] for group in sorted(sums)])
    drawn = np.random.default_rng(seed).integers(len(groups), size=(draws, len(groups)))
    values, weights = groups[drawn].sum(axis=1).T
    low, high = np.quantile(values / weights, [0.025, 0.975]) if len(groups) > 1 else (None, None)
    total = groups.sum(axis=0)
    found = {"value": total[0] / total[1], "low": low, "high": high, "groups": len(groups)}
    return {name: rounded(value) for name, value in found.items()}


def comparison(scored: Sequence[Scored], seed: int) -> dict[str, dict[str, float | None]]:
    """base, tuned and improvement of one set of stories, rounded to six digits after the point."""
    parts = {
        "base": per_token(scored, "base"),
        "tuned": per_token(scored, "tuned"),
        "improvement": improvement(scored, seed),
    }
    return {
        part: {name: rounded(value) for name, value in numbers.items()} for part, numbers in parts.items()
    }


def rounded(value: float | None) -> float | None:
    """Six digits after the point, short enough to read in a diff."""
    return value if value is None or isinstance(value, int) else round(float(value), 6)
