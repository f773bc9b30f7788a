"""What is known of a source once it has been read, in memory that does not grow with it."""

import textwrap
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from storyforge.core.records import Story
from storyforge.core.words import quantiles

SAMPLES = 3
OPENING_CHARACTERS = 240


@dataclass
class Tally:
    kept: int = 0
    not_chosen: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    first_reject: str = ""
    lengths: Counter[int] = field(default_factory=Counter)  # words of a story → how many have as many
    bytes: int = 0
    samples: list[tuple[int, str, str]] = field(default_factory=list)  # rank, id, opening: the lowest ranks

    @property
    def read(self) -> int:
        return self.kept + self.not_chosen + self.duplicates + self.rejected.total()

    def reject(self, reason: str, where: str) -> None:
        self.first_reject = self.first_reject or f"{where}: {reason}"
        self.rejected[reason] += 1

    def keep(self, story: Story, rank: int) -> None:
        self.kept += 1
        self.lengths[len(story.text.split())] += 1
        self.bytes += len(story.text.encode())
        if len(self.samples) < SAMPLES or rank < self.samples[-1][0]:
            opening = textwrap.shorten(
                story.text[: 4 * OPENING_CHARACTERS], OPENING_CHARACTERS, placeholder=" …"
            )
            self.samples = sorted([*self.samples, (rank, story.id, opening)])[:SAMPLES]

    def report(self) -> dict[str, Any]:
        return {
            "stories": self.kept,
            "words": sum(length * count for length, count in self.lengths.items()),
            "bytes": self.bytes,
            "words_per_story": quantiles(self.lengths),
            "records": {
                "read": self.read,
                "not_chosen": self.not_chosen,
                "duplicates": self.duplicates,
                "rejected": dict(sorted(self.rejected.items())),
            },
            "samples": [{"id": identity, "opening": opening} for _, identity, opening in self.samples],
        }
