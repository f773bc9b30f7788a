"""Finding: what a check says of one text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # from and to, in characters of the text
BROKEN_OFF = re.compile(r"(?:\s+|\A)\S{1,40}\s*\Z")  # a longer run is of a script without spaces


@dataclass(frozen=True, slots=True)
class Finding:
    """How well a text keeps one rule: 1 at every opportunity, 0 at none."""

    score: float
    spans: tuple[Span, ...]  # where the rule is broken; empty too where something is missing
    opportunities: int  # at least 1: what a mean over texts weighs the score with


def finding(kept: float, opportunities: int, spans: Sequence[Span] = ()) -> Finding | None:
    """None where there was no opportunity to keep or to break the rule."""
    return Finding(kept / opportunities, tuple(spans), opportunities) if opportunities else None


def complete(text: str, ended: bool) -> str:
    """Without the last word of a text that was cut: it may be the half of one."""
    return text if ended else BROKEN_OFF.sub("", text)
