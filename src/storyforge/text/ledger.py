"""What became of the drafts: counts both ways, examples, and a few of those kept to read."""

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storyforge.text.corpus import Card
from storyforge.text.selection import rank
from storyforge.text.split import SIDES, SplitParams, absent
from storyforge.text.tally import quantiles

EXAMPLES = 3
OPENINGS = 10
SHORTENED = 120  # characters
PRIVATE = re.compile(r"\S+@\S+\.\w+|https?:\S+|(?<![\w/])/?u/[\w-]+|\b\d{3}[-. ]?\d{3,4}[-. ]?\d{4}\b")


@dataclass
class Lowest:
    """The few items of the lowest rank: a sample that no order of arrival changes."""

    size: int
    items: list[tuple[int, str, dict[str, str]]] = field(default_factory=list)

    def offer(self, place: int, identity: str, item: dict[str, str]) -> None:
        if len(self.items) < self.size or place < self.items[-1][0]:
            self.items = sorted([*self.items, (place, identity, item)], key=lambda entry: entry[:2])[
                : self.size
            ]


@dataclass
class Ledger:
    """One source's account; `drafts` = kept + dropped, or something was lost."""

    rules: Sequence[str]  # in the order of the pipeline
    drafts: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # side → rows
    words: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by the first rule that fired
    alone: Counter[str] = field(default_factory=Counter)  # by every rule that fired
    stripped_characters: int = 0
    unended: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    examples: dict[str, Lowest] = field(default_factory=lambda: defaultdict(lambda: Lowest(EXAMPLES)))
    openings: Lowest = field(default_factory=lambda: Lowest(OPENINGS))

    def enter(self, row: Mapping[str, Any], side: str, words: int, reasons: Mapping[str, str]) -> None:
        self.drafts += 1
        self.alone.update(reasons.keys())
        place = rank(row["id"], seed=0)
        if reasons:
            first = next(rule for rule in self.rules if rule in reasons)
            self.dropped[first] += 1
            item = {"id": row["id"], "reason": shortened(reasons[first]), "opening": shortened(row["story"])}
            self.examples[first].offer(place, row["id"], item)
            return
        self.kept[side] += 1
        self.words[side] += words
        self.lengths[words] += 1
        self.unended += not row["ended"]
        self.stripped_characters += row["meta"].get("stripped_characters", 0)
        item = {"id": row["id"], "prompt": shortened(row["prompt"]), "opening": shortened(row["story"])}
        self.openings.offer(place, row["id"], item)

    def report(self) -> dict[str, Any]:
        assert self.drafts == self.kept.total() + self.dropped.total(), (
            f"{self.drafts} drafts, some of them lost"
        )
        fired = [rule for rule in self.rules if self.alone[rule]]
        return {
            "drafts": self.drafts,
            "kept": dict(self.kept),
            "words": dict(self.words),
            "cut_short": self.unended,
            "stripped_characters": self.stripped_characters,
            "words_per_story": quantiles(self.lengths),
            "rules": {
                rule: {
                    "dropped": self.dropped[rule],
                    "would_drop_alone": self.alone[rule],
                    "examples": [item for _, _, item in self.examples[rule].items],
                }
                for rule in fired
            },
            "openings": [item for _, _, item in self.openings.items],
        }


def report(ledgers: Mapping[str, Ledger], cards: Sequence[Card], split: SplitParams) -> dict[str, Any]:
    """All accounts, what each side holds, and how large the families of copies and of prompts are."""
    groups: dict[str, set[str]] = {source: set() for source in ledgers}
    together: dict[str, set[str]] = defaultdict(set)
    for card in cards:
        groups[card.source].add(card.group)
        if card.prompt_words and not card.reasons:
            together[card.key].add(card.group)
    return {
        "splits": {side: _sizes(card for card in cards if card.side == side) for side in SIDES},
        "sources": {
            source: ledger.report() | {"held_out_but_absent": absent(source, groups[source], split)}
            for source, ledger in ledgers.items()
        },
        "copies_of_one_story": _histogram(Counter(card.original for card in cards if card.original).values()),
        "groups_of_one_prompt": _histogram(map(len, together.values())),
    }


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers worth comparing between two runs."""
    return {
        "splits": report["splits"],
        "sources": {
            source: {
                "rows": account["kept"],
                "words": account["words"],
                "dropped": {rule: counts["dropped"] for rule, counts in account["rules"].items()},
            }
            for source, account in report["sources"].items()
        },
    }


def _sizes(cards: Iterable[Card]) -> dict[str, int]:
    kept = [card for card in cards if not card.reasons]
    return {
        "rows": len(kept),
        "words": sum(card.words for card in kept),
        "groups": len({(card.source, card.key) for card in kept}),
    }


def _histogram(sizes: Iterable[int]) -> dict[str, int]:
    """Size → how many have it."""
    return {str(size): count for size, count in sorted(Counter(sizes).items())}


def shortened(text: str) -> str:
    """The beginning, on one line, without addresses, links, user names or telephone numbers."""
    return textwrap.shorten(PRIVATE.sub("[…]", text[: 4 * SHORTENED]), SHORTENED, placeholder=" …")
