"""What is said of each source: its stories, works and words, what was rejected or not read, and why."""

import hashlib
import textwrap
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from storyforge.collect.folder import Listing, unread
from storyforge.collect.reading import Record, Unusable
from storyforge.core.choice import rank as rank_of
from storyforge.core.words import quantiles

SAMPLES = 3
REJECTS_SHOWN = 5  # of a source, in the terminal; rejects.jsonl has all
OPENING_CHARACTERS = 240
MOST_OF_A_PREMISE = 3  # stories of a prompt, as preprocess has it
REMEDIES = {  # of each reason for which a record holds no story
    "invalid_utf8": "is not UTF-8: save it as UTF-8",
    "too_long": "is too large: cut it into several files, or save rows as .jsonl",
    "too_deep": "is JSON nested too deep: mend or remove it",
    "damaged": "is damaged: save it again, or remove it",
    "encrypted": "is encrypted: save it without a password",
    "not_json": "is not JSON: mend or remove it",
    "not_csv": "is not CSV: save it again as CSV, with quotation marks around texts",
    "not_an_object": "is JSON but no object: make each row an object with a text",
    "not_a_number": "is JSON with NaN or Infinity: take that out",
    "duplicate_key": "has a key twice: rename one",
    "no_text": "has no text: rename a key",
    "no_prompt": "has no prompt: fill it in or remove the record",
    "empty_archive": "holds no file: pack it again or remove it",
    "empty_text": "is empty: fill it in or remove it",
    "empty_prompt": "has an empty prompt: fill it in or remove the record",
    "nul": "holds NUL characters, so it is no text: save it as text",
    "lone_surrogate": "holds half a character: save it again as UTF-8",
    "no_scenes": "has no scenes: check that it is a play",
}


@dataclass(frozen=True, slots=True)
class Reject:
    """A record no story was made of: its place, its size and what its bytes hash to, never its text."""

    source: str
    file: str
    record: int  # line or row, from 1
    offset: int | None  # in bytes, where the file has lines
    reason: str
    sha256: str  # of its bytes, or of the first reading.MAX_RECORD_BYTES + 1
    bytes: int
    detail: str = ""

    def __str__(self) -> str:
        """For a person: the file, what is wrong, and what to do."""
        what = REMEDIES.get(self.reason, f"{self.reason.replace('_', ' ')}: mend or remove it")
        row = f", record {self.record}" if self.record > 1 or self.source != "folder" else ""
        wrong, _, remedy = what.partition(": ")
        return f"{self.file}{row} {wrong}{f' ({self.detail})' if self.detail else ''}: {remedy}"


def counted(number: int, one: str, more: str = "") -> str:
    return f"{number:,} {one if number == 1 else more or one + 's'}"


def reject_of(source: str, record: Record, reason: Unusable) -> Reject:
    data = record.bytes
    place = (record.file, record.number, record.offset, str(reason))
    return Reject(source, *place, hashlib.sha256(data).hexdigest(), len(data), reason.detail)


@dataclass
class Counts:
    """What the report says of one source, in memory that does not grow with it, one's own folder aside."""

    kept: int = 0
    not_chosen: int = 0
    duplicates: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    read_bytes: int = 0  # of the stories' texts and the rejected records
    rejected_bytes: int = 0
    first_rejects: list[str] = field(default_factory=list)  # a line each
    lengths: Counter[int] = field(default_factory=Counter)  # words of a story → how many have as many
    bytes: int = 0
    groups: Counter[int] = field(default_factory=Counter)  # a hash of each group → its stories
    prompts: set[int] = field(default_factory=set)  # those groups that are named after a prompt
    taken_off: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[int, str, str]] = field(default_factory=list)  # rank, id, opening: the lowest ranks

    @property
    def read(self) -> int:
        return self.kept + self.not_chosen + self.duplicates + self.rejected.total()

    def reject(self, reject: Reject) -> None:
        if len(self.first_rejects) < REJECTS_SHOWN:
            self.first_rejects.append(str(reject))
        self.rejected[reject.reason] += 1
        self.rejected_bytes += reject.bytes
        self.read_bytes += reject.bytes

    def choose(self, cards: np.ndarray, stay: np.ndarray, limit: int) -> None:
        """The stories of a shard (shards.CARD), which of them stay, and the highest rank that is wanted."""
        kept, wanted = cards[stay], int(np.count_nonzero(cards["rank"] <= limit))
        self.kept += len(kept)
        self.not_chosen += len(cards) - wanted
        self.duplicates += wanted - len(kept)
        self.read_bytes += int(cards["bytes"].sum(dtype=np.int64))
        self.bytes += int(kept["bytes"].sum(dtype=np.int64))
        lengths, counts = np.unique(kept["words"], return_counts=True)
        self.lengths.update(dict(zip(lengths.tolist(), counts.tolist(), strict=True)))

    def sample(self, story: Mapping[str, Any], rank: int) -> None:
        """Of each shard those of the lowest ranks; those of all stories remain."""
        beginning = story["text"][: 4 * OPENING_CHARACTERS]
        opening = textwrap.shorten(beginning, OPENING_CHARACTERS, placeholder=" …")
        self.samples = sorted([*self.samples, (rank, story["id"], opening)])[:SAMPLES]

    def enter(self, story: Mapping[str, Any]) -> None:
        """What is told of one's own stories besides: to which work each belongs, what was taken off."""
        group = rank_of(story["group"], 0)
        self.groups[group] += 1
        if story["group"] == "".join(filter(str.isalnum, (story["prompt"] or "").casefold())):
            self.prompts.add(group)
        self.taken_off.update(story["meta"].get("taken_off", {}))

    @property
    def works(self) -> int:
        """A prompt of many stories is an instruction, and its stories are works of their own."""
        return sum(
            count if group in self.prompts and count > MOST_OF_A_PREMISE else 1
            for group, count in self.groups.items()
        )

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


def own_account(counts: Counts, listing: Listing | None) -> dict[str, Any]:
    """Of one's own folder besides: its files, works, and what was taken off the stories."""
    if listing is None:
        return {}
    files = {
        "read": len(listing.files),
        "not_read": dict(sorted(listing.not_read.items())),
        "left_out": dict(sorted(listing.left_out.items())),
    }
    taken_off = dict(sorted(counts.taken_off.items()))
    return {
        "works": counts.works,
        "files": files,
        "taken_off": taken_off,
        "unread": unread(listing.not_read),
    }


def left(name: str, counts: Counts, listing: Listing | None) -> list[str]:
    """What a person should know of what is not in data/raw, in lines."""
    more = counts.rejected.total() - len(counts.first_rejects)
    notes = [f"{name}: rejected: {line}" for line in counts.first_rejects]
    notes += [f"{name}: rejected: {more:,} more: see data/raw/rejects.jsonl"] if more else []
    if listing and (line := unread(listing.not_read)):
        notes.append(f"{name}: {line}")
    if listing and listing.left_out:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(listing.left_out.items()))
        notes.append(f"{name}: left out: {kinds}")
    if counts.duplicates:
        repeats = counted(counts.duplicates, "story that repeats", "stories that repeat")
        notes.append(f"{name}: left out: {repeats} another word for word")
    if counts.taken_off:
        kinds = ", ".join(
            f"{kind.replace('_', ' ')} {count:,}" for kind, count in sorted(counts.taken_off.items())
        )
        notes.append(f"{name}: taken off the stories: {kinds}")
    return notes
