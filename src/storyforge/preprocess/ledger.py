"""What became of the drafts: counts both ways, examples, and a few of those kept to read."""

import json
import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.records import SIDES
from storyforge.core.words import quantiles
from storyforge.preprocess.corpus import Card
from storyforge.preprocess.split import SplitParams, absent

EXAMPLES = 3
OPENINGS = 10
SHORTENED = 120  # characters
PRIVATE = re.compile(r"\S+@\S+\.\w+|https?:\S+|(?<![\w/])/?u/[\w-]+|\b\d{3}[-. ]?\d{3,4}[-. ]?\d{4}\b")


@dataclass
class Sample:
    """The few drafts of the lowest rank: no order of arrival changes which."""

    size: int
    shown: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def offer(self, card: Card, line: bytes, **more: str) -> None:
        """`line` is the draft as JSON, read only if it is to be shown."""
        place = rank(card.id, seed=0)
        if len(self.shown) == self.size and place >= self.shown[-1][0]:
            return
        row = json.loads(line)
        entry = {"id": card.id, "prompt": shortened(row["prompt"]), "opening": shortened(row["story"])}
        self.shown = sorted([*self.shown, (place, entry | more)], key=lambda pair: pair[0])[: self.size]

    def entries(self) -> list[dict[str, str]]:
        return [entry for _, entry in self.shown]


@dataclass
class Ledger:
    """One source's account."""

    rules: Sequence[str]  # in the order of the pipeline
    drafts: int = 0
    kept: Counter[str] = field(default_factory=Counter)  # side → rows
    words: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by the first rule that fired
    alone: Counter[str] = field(default_factory=Counter)  # by every rule that fired
    stripped_characters: int = 0
    cut_short: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    examples: dict[str, Sample] = field(default_factory=lambda: defaultdict(lambda: Sample(EXAMPLES)))
    openings: Sample = field(default_factory=lambda: Sample(OPENINGS))

    def enter(self, card: Card, line: bytes) -> None:
        self.drafts += 1
        self.alone.update(card.reasons.keys())
        if card.reasons:
            first = next(rule for rule in self.rules if rule in card.reasons)
            self.dropped[first] += 1
            self.examples[first].offer(card, line, reason=shortened(card.reasons[first]))
            return
        self.kept[card.side] += 1
        self.words[card.side] += card.words
        self.lengths[card.words] += 1
        self.cut_short += not card.ended
        self.stripped_characters += card.stripped_characters
        self.openings.offer(card, line)

    def report(self) -> dict[str, Any]:
        accounted = self.kept.total() + self.dropped.total()
        assert self.drafts == accounted, f"{accounted} of {self.drafts} drafts are accounted for"
        return {
            "drafts": self.drafts,
            "kept": {side: self.kept[side] for side in SIDES},
            "words": {side: self.words[side] for side in SIDES},
            "cut_short": self.cut_short,
            "stripped_characters": self.stripped_characters,
            "words_per_story": quantiles(self.lengths),
            "rules": {
                rule: {
                    "dropped": self.dropped[rule],
                    "would_drop_alone": self.alone[rule],
                    "examples": self.examples[rule].entries(),
                }
                for rule in self.rules
                if self.alone[rule]
            },
            "openings": self.openings.entries(),
        }


def report(ledgers: Mapping[str, Ledger], cards: Sequence[Card], split: SplitParams) -> dict[str, Any]:
    """All accounts, what each side holds, and how large the families of copies and of prompts are."""
    groups: dict[str, set[str]] = {source: set() for source in ledgers}
    together: dict[str, set[str]] = defaultdict(set)
    for card in cards:
        groups[card.source].add(card.group)
        if card.prompt_words and not card.reasons:
            together[card.key].add(card.group)
    copies = Counter(card.original for card in cards if card.original)
    return {
        "splits": {side: _sizes(card for card in cards if card.side == side) for side in SIDES},
        "sources": {
            source: ledger.report() | {"held_out_but_absent": absent(source, groups[source], split)}
            for source, ledger in ledgers.items()
        },
        "copies_of_one_story": _histogram(copies.values()),
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


def shortened(text: str) -> str:
    """The beginning, on one line, without addresses, links, user names or telephone numbers."""
    return textwrap.shorten(PRIVATE.sub("[…]", text[: 4 * SHORTENED]), SHORTENED, placeholder=" …")


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
