"""A source's stories in shards on disk: tasks make them, ranks decide which stay, their lines are joined.

A shard is what one task makes of some records. Of each there are, in the order of the records,
  stories.jsonl  a line a story whose rank is not above `highest`: others are not wanted
  rejects.jsonl  a line a record that no story was made of
  cards          a CARD a story: what the choice and the report ask of it
"""

import json
import mmap
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
from storyforge.core.files import dumps, published_folder, read_jsonl
from storyforge.core.records import Story
from storyforge.core.storage import Work

# Rank, bytes and words of the story, bytes of its line; of what has no line the last two are 0.
CARD = np.dtype([("rank", "<u8"), ("bytes", "<u4"), ("words", "<u4"), ("line", "<u4")])
SPARE = 100  # stories beside those that are wanted
PACKED = struct.Struct("<QIII")


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

    work: Work  # a folder
    seed: int
    highest: int = HIGHEST_RANK

    def make(self, share: Share, *, quiet: bool = True) -> None:
        """The shard of these records, whole or not at all. UserError on a machine that sees no `work`."""
        self.work.require()
        found = tqdm(share.stories(), share.source, unit=" stories", disable=quiet or None)
        with (
            published_folder(self.folder(share)) as folder,
            (folder / "stories.jsonl").open("wb") as stories,
            (folder / "rejects.jsonl").open("wb") as rejects,
            (folder / "cards").open("wb") as cards,
        ):
            for each in found:
                if isinstance(each, Reject):
                    rejects.write(dumps(each).encode() + b"\n")
                    continue
                place, size, words, line = rank(each.id, self.seed), len(each.text.encode()), 0, 0
                if place <= self.highest:
                    line = stories.write(dumps(each).encode() + b"\n")
                    words = len(each.text.split())
                cards.write(PACKED.pack(place, size, words, line))

    def folder(self, share: Share) -> Path:
        return Path(self.work.root, f"{share.source}-{share.number:05}-{self.highest:016x}")

    def is_made(self, share: Share) -> bool:
        return self.folder(share).is_dir()

    def choice(self, shares: Sequence[Share], wanted: int | None) -> "Choice":
        """Which stories of these shards stay; some 10 bytes a story are held while it is decided."""
        sizes = [(self.folder(share) / "cards").stat().st_size for share in shares]
        ranks, end = np.empty(sum(sizes) // CARD.itemsize, np.uint64), 0
        for share in shares:
            cards = self.cards(share)
            start, end = end, end + len(cards)
            ranks[start:end] = cards["rank"]
        return Choice.among(ranks, wanted)

    def cards(self, share: Share) -> np.ndarray:
        return np.fromfile(self.folder(share) / "cards", CARD)


def likely_highest(wanted: int | None, rows: int | None) -> int:
    """A rank that the `wanted` lowest of so many rows are rarely above, some copies and rejects among them.

    Of the others no line is written, which is most of the work; and where it was too low, all are made again.
    """
    if wanted is None or not rows:
        return HIGHEST_RANK
    return HIGHEST_RANK * min(rows, wanted * 11 // 10 + SPARE) // rows


@dataclass(frozen=True, slots=True)
class Choice:
    """Which stories stay: their ranks alone decide; of several of one rank it is the first."""

    limit: int  # the highest rank that is wanted
    repeated: np.ndarray  # ranks that several stories have, ascending
    met: np.ndarray  # which of these some story had, of those that were asked for

    @classmethod
    def among(cls, ranks: np.ndarray, wanted: int | None) -> "Choice":
        """The `wanted` lowest, None all. `ranks` are sorted in place, and two bytes beside each are held."""
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
    maker: Maker,
    shares: Sequence[Share],
    choice: Choice,
    counts: Counts,
    rejects: BinaryIO,
    *,
    own: bool,
) -> Iterator[memoryview]:
    """The lines of the stories that stay, in the order of the source, as many at once as lie side by side.

    All is counted, and entered one by one where they are one's own; rejects are written.
    """
    for share in shares:
        cards, folder = maker.cards(share), maker.folder(share)
        stay = choice.stay(cards["rank"])
        counts.choose(cards, stay, choice.limit)
        for reject in read_jsonl(folder / "rejects.jsonl", Reject):
            counts.reject(reject)
            rejects.write(dumps(reject).encode() + b"\n")
        if not len(kept := np.flatnonzero(stay)):
            continue
        samples = kept[np.argsort(cards["rank"][kept])[:SAMPLES]].tolist()
        ends = np.cumsum(cards["line"], dtype=np.int64)
        starts = ends - cards["line"]
        with (folder / "stories.jsonl").open("rb") as file:
            lines = memoryview(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
        assert len(lines) == ends[-1], f"{folder} has other lines than cards"
        for place in kept.tolist() if own else samples:
            story = json.loads(bytes(lines[starts[place] : ends[place]]))
            if own:
                counts.enter(story)
            if place in samples:
                counts.sample(story, int(cards["rank"][place]))
        side_by_side = np.flatnonzero(np.diff(stay, prepend=False, append=False)).reshape(-1, 2)
        for first, after in side_by_side:
            yield lines[starts[first] : ends[after - 1]]
