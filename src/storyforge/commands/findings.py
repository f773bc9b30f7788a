"""What a check of `storyforge doctor` finds."""

from dataclasses import dataclass
from shlex import join
from typing import Literal

Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person; `mend` are the commands that help, to be run in this order."""

    state: Literal["ok", "note", "wrong"]
    text: str
    mend: tuple[Command, ...] = ()
    by_hand: bool = False  # too long, too large or too personal for us to run

    @property
    def remedy(self) -> str:
        return " && ".join(map(join, self.mend))
