"""What became of the drafts: counts by rule and side, and a few of those dropped and kept to read."""

import json
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storyforge.core.choice import rank
from storyforge.core.records import SIDES
from storyforge.core.words import quantiles
from storyforge.measures.intervals import MIN_GROUPS
from storyforge.preprocess.corpus import Candidate
from storyforge.preprocess.heldout import ONE_OF, SplitParams, absent

EXAMPLES = 3
OPENINGS = 10
ENOUGH_WORKS = MIN_GROUPS * ONE_OF  # in all: one of ONE_OF is held out at least
SHORTENED = 120  # characters
PRIVATE = re.compile(r"\S+@\S+\.\w+|https?:\S+|(?<![\w/])/?u/[\w-]+|\b\d{3}[-. ]?\d{3,4}[-. ]?\d{4}\b")


@dataclass
class Sample:
    """The few drafts of the lowest rank, whatever the order in which they come."""

    size: int
    shown: list[tuple[int, dict[str, str]]] = field(default_factory=list)

    def offer(self, candidate: Candidate, line: bytes, **more: str) -> None:
        """`line` is the draft as JSON, read only if it is to be shown."""
        place = rank(candidate.id, seed=0)
        if len(self.shown) == self.size and place >= self.shown[-1][0]:
            return
        row = json.loads(line)
        entry = {"id": candidate.id, "prompt": shortened(row["prompt"]), "opening": shortened(row["story"])}
        self.shown = sorted([*self.shown, (place, entry | more)], key=lambda pair: pair[0])[: self.size]

    def add(self, later: "Sample") -> None:
        """What was offered to another one afterwards."""
        self.shown = sorted([*self.shown, *later.shown], key=lambda pair: pair[0])[: self.size]

    def entries(self) -> list[dict[str, str]]:
        return [entry for _, entry in self.shown]


@dataclass
class Read:
    """What was read: how many stories of each source, and which file each of one's own stands in."""

    stories: Counter[str] = field(default_factory=Counter)
    files: dict[str, str] = field(default_factory=dict)  # by story

    def copies(self, account: Mapping[str, Any]) -> str:
        """Two files of which one repeats or shares text of the other, where there are such; else ""."""
        for rule in ("near_copy", "held_out_text", "copy"):
            for example in account["rules"].get(rule, {}).get("examples", ()):
                file = self.files.get(example["id"].partition("-")[0])
                words = re.findall(r"\w+", example["reason"])
                other = next((self.files[word] for word in words if word in self.files), None)
                if file and other and file != other:
                    return f"{file} has much of the text of {other}"
        return ""


@dataclass(frozen=True, slots=True)
class Families:
    """What of the whole stands in no account."""

    clusters: Mapping[str, int]  # side → how many
    groups: Mapping[str, np.ndarray]  # source → ranks of their names
    copies: Iterable[int]  # of each original
    prompts: Iterable[int]  # of each cluster, how many groups
    ended: Sequence[str] = ()  # works whose own end is held out


@dataclass
class Account:
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
    examples: dict[str, Sample] = field(default_factory=dict)  # by rule
    openings: Sample = field(default_factory=lambda: Sample(OPENINGS))
    languages: Counter[str] = field(default_factory=Counter)

    def enter(self, candidate: Candidate, line: bytes) -> None:
        self.drafts += 1
        self.alone.update(candidate.reasons.keys())
        if candidate.reasons:
            first = next(rule for rule in self.rules if rule in candidate.reasons)
            self.dropped[first] += 1
            self.examples.setdefault(first, Sample(EXAMPLES)).offer(
                candidate, line, reason=shortened(candidate.reasons[first])
            )
            return
        self.kept[candidate.side] += 1
        self.words[candidate.side] += candidate.words
        self.lengths[candidate.words] += 1
        self.cut_short += not candidate.ended
        self.stripped_characters += candidate.stripped_characters
        self.openings.offer(candidate, line)
        self.languages[candidate.language] += 1

    def add(self, later: "Account") -> None:
        """The account of drafts that come after these."""
        for name in ("kept", "words", "dropped", "alone", "lengths", "languages"):
            getattr(self, name).update(getattr(later, name))
        self.drafts += later.drafts
        self.stripped_characters += later.stripped_characters
        self.cut_short += later.cut_short
        for rule, sample in later.examples.items():
            self.examples.setdefault(rule, Sample(EXAMPLES)).add(sample)
        self.openings.add(later.openings)

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
                    "examples": self.examples[rule].entries() if rule in self.examples else [],
                }
                for rule in self.rules
                if self.alone[rule]
            },
            "openings": self.openings.entries(),
            **({"languages": dict(sorted(self.languages.items()))} if set(self.languages) - {"en"} else {}),
        }


def report(accounts: Mapping[str, Account], families: Families, split: SplitParams) -> dict[str, Any]:
    """All accounts, what each side holds, and how large the families of copies and of prompts are."""
    splits = {
        side: {
            "rows": sum(account.kept[side] for account in accounts.values()),
            "words": sum(account.words[side] for account in accounts.values()),
            "groups": families.clusters[side],
        }
        for side in SIDES
    }
    return {
        "splits": splits,
        "sources": {
            source: account.report() | {"held_out_but_absent": absent(source, families.groups[source], split)}
            for source, account in accounts.items()
        },
        "copies_of_one_story": _histogram(families.copies),
        "groups_of_one_prompt": _histogram(families.prompts),
        **({"ends_held_out": sorted(families.ended)} if families.ended else {}),
    }


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers worth comparing between two runs; metadata.json has the others."""
    rows = {side: split["rows"] for side, split in report["splits"].items()}
    drafts = sum(account["drafts"] for account in report["sources"].values())
    return {
        "kept_stories": sum(rows.values()),
        "rejected_share": round(1 - sum(rows.values()) / drafts, 4),
        "train_stories": rows["train"],
        "test_stories": rows["test"],
    }


def outlook(report: Mapping[str, Any]) -> str:
    """What is trained on and held out, and what the report can therefore say: told before training."""
    groups, rows = (
        {side: split[column] for side, split in report["splits"].items()} for column in ("groups", "rows")
    )
    ends = "ends_held_out" in report and groups["test"] < MIN_GROUPS
    works = groups["train"] if ends else sum(groups.values())
    shares = ", ".join(f"{count:,} {side}" for side, count in (rows if ends else groups).items())
    if ends:
        shares = f"the end is held out behind a gap ({shares} passages)"
        said = "will show how well that end is predicted, and has no interval for other works"
    elif not groups["test"]:
        said = "will show samples, no loss and no interval"
    elif groups["test"] < MIN_GROUPS:
        said = "will show samples and no interval"
    else:
        return f"{works:,} works: {shares}. The report will give each difference with an interval"
    noun = "work" if works == 1 else "works"
    return f"{works:,} {noun}: {shares}. With so few the report {said}; {ENOUGH_WORKS} or more give one"


def shortened(text: str) -> str:
    """The beginning, on one line, without addresses, links, user names or telephone numbers."""
    return textwrap.shorten(PRIVATE.sub("[…]", text[: 4 * SHORTENED]), SHORTENED, placeholder=" …")


def _histogram(sizes: Iterable[int]) -> dict[str, int]:
    """Size → how many have it."""
    return {str(size): count for size, count in sorted(Counter(sizes).items())}
