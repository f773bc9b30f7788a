"""Losses of stories under both writers, and their difference with an interval."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storyforge.measures.intervals import difference, rounded

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


def per_token(scored: Sequence[Scored], writer: str) -> dict[str, float | None]:
    """Token-weighted loss in nats, perplexity, and bits a UTF-8 byte, which compares across tokenizers.

    None of nothing.
    """
    if not scored:
        return dict.fromkeys(("loss", "perplexity", "bits_per_byte"))
    nll = math.fsum(getattr(story, writer) for story in scored)
    loss = nll / sum(story.tokens for story in scored)
    bits = nll / (math.log(2) * sum(story.bytes for story in scored))
    numbers = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": bits}
    return {name: rounded(value) for name, value in numbers.items()}


def improvement(scored: Sequence[Scored]) -> dict[str, float | None]:
    """Nats per token that tuning saves, with its interval: both writers read the same tokens."""
    saved = [(story.group, story.base - story.tuned, story.tokens) for story in scored]
    found = difference(saved)
    return {"nats_per_token": found.pop("value"), **found}


def comparison(scored: Sequence[Scored]) -> dict[str, dict[str, float | None]]:
    """base, tuned and improvement of one set of stories."""
    return {
        **{writer: per_token(scored, writer) for writer in WRITERS},
        "improvement": improvement(scored),
    }
