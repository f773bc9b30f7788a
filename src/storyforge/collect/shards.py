"""A source's stories in shards on disk: tasks make them, ranks decide which stay, their lines are joined.

A shard is what one task makes of some records. Of each there are, in the order of the records,
  stories.jsonl  a line a story
  rejects.jsonl  a line a record that no story was made of
  cards          a CARD a story: what the choice and the report ask of it
"""

import json
import platform
import struct
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from storyforge.collect.accounts import SAMPLES, Counts, Reject, reject_of
from storyforge.collect.reading import Record, Unusable
from storyforge.collect.sources import SOURCES
from storyforge.core.choice import HIGHEST_RANK, rank
from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published_folder, read_jsonl
from storyforge.core.records import Story

CARD = np.dtype([("rank", "<u8"), ("bytes", "<u4"), ("words", "<u4")])  # the last two: of its text
PACKED = struct.Struct("<QII")


@dataclass(frozen=True, slots=True)
class Share:
    """The records that one task reads."""

    source: str
    number: int
    named: str  # for a person
    records: Callable[[], Iterator[Record]]  # pickled where a task runs in another process

    def stories(self) -> Iterator[Story | Reject]:
        for record in self.records():
            try:
                if record.unusable:
                    raise record.unusable
                made = SOURCES[self.source].stories(record)
                yield from [made] if isinstance(made, Story) else made
            except Unusable as reason:
                yield reject_of(self.source, record, reason)


@dataclass(frozen=True, slots=True)
class Maker:
    """The task, and what it needs besides its item."""

    work: Path
    seed: int

    def make(self, share: Share, *, quiet: bool = True) -> None:
        """The shard of these records, whole or not at all. UserError on a machine that sees no `work`."""
        if not self.work.is_dir():
            remedy = "give engine.yaml a `work` in a folder that all nodes see"
            raise UserError(f"{platform.node()} does not see {self.work}: {remedy}")
        found = tqdm(share.stories(), share.source, unit=" stories", disable=quiet or None)
        with (
            published_folder(_folder(self.work, share)) as folder,
            (folder / "stories.jsonl").open("wb") as stories,
            (folder / "rejects.jsonl").open("wb") as rejects,
            (folder / "cards").open("wb") as cards,
        ):
            for each in found:
                (rejects if isinstance(each, Reject) else stories).write(dumps(each).encode() + b"\n")
                if isinstance(each, Story):
                    size, words = len(each.text.encode()), len(each.text.split())
                    cards.write(PACKED.pack(rank(each.id, self.seed), size, words))


def is_made(work: Path, share: Share) -> bool:
    return _folder(work, share).is_dir()


def _folder(work: Path, share: Share) -> Path:
    return work / f"{share.source}-{share.number:05}"


def _cards(work: Path, share: Share) -> np.ndarray:
    return np.fromfile(_folder(work, share) / "cards", CARD)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stories stay: their ranks alone decide; of several of one rank it is the first."""

    limit: int  # the highest rank that is wanted
    repeated: np.ndarray  # ranks that several stories have, ascending
    met: np.ndarray  # which of these some story had, of those that were asked for

    @classmethod
    def among(cls, ranks: np.ndarray, wanted: int | None) -> "Choice":
        """The `wanted` lowest, None all. `ranks` are sorted in place, and a byte beside each is held."""
        ranks.sort()
        new = np.ones(len(ranks), bool)
        np.not_equal(ranks[1:], ranks[:-1], out=new[1:])
        limit = HIGHEST_RANK
        if wanted is not None and wanted <= np.count_nonzero(new):
            last = bisect_left(range(len(new)), wanted, key=lambda place: np.count_nonzero(new[: place + 1]))
            limit = int(ranks[last])
        repeated = np.unique(ranks[~new])
        return cls(limit, repeated, np.zeros(len(repeated), bool))

    def stay(self, ranks: np.ndarray) -> np.ndarray:
        """(stories,) bool, of the next shard in the order of the source."""
        stay = ranks <= self.limit
        if len(self.repeated):
            place = np.searchsorted(self.repeated, ranks).clip(max=len(self.repeated) - 1)
            again = np.flatnonzero(stay & (self.repeated[place] == ranks))
            which, first = np.unique(place[again], return_index=True)
            stay[again] = False
            stay[again[first[~self.met[which]]]] = True
            self.met[which] = True
        return stay


def joined(
    work: Path, shares: Sequence[Share], wanted: int | None, counts: Counts, rejects: BinaryIO
) -> Iterator[bytes]:
    """The lines of the wanted number of stories, in the order of the source; all is counted, rejects written.

    Held are 16 bytes a story of one shard, and 9 a story of the source while it is decided which stay.
    """
    choice = Choice.among(np.concatenate([_cards(work, share)["rank"] for share in shares]), wanted)
    for share in shares:
        cards = _cards(work, share)
        stay = choice.stay(cards["rank"])
        counts.choose(cards, stay, choice.limit)
        for reject in read_jsonl(_folder(work, share) / "rejects.jsonl", Reject):
            counts.reject(reject)
            rejects.write(dumps(reject).encode() + b"\n")
        kept = np.flatnonzero(stay)
        samples = set(kept[np.argsort(cards["rank"][kept])[:SAMPLES]].tolist())
        with (_folder(work, share) / "stories.jsonl").open("rb") as lines:
            for place, (line, stays) in enumerate(zip(lines, stay.tolist(), strict=True)):
                if stays:
                    yield line
                if place in samples:
                    counts.sample(json.loads(line), int(cards["rank"][place]))
