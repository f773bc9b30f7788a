"""What a check of `storyforge doctor` finds."""

from dataclasses import dataclass
from functools import partial

MARKS = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person."""

    state: str  # ok, note or wrong
    text: str
    remedy: str = ""  # a shell's command that helps
    by_hand: bool = False  # too long, too large or too personal to be run by doctor


ok, note, wrong = (partial(Finding, state) for state in MARKS)
