"""Raw stories in shards, and the drafts of each on disk, where they stay: tasks share files, not texts.

A draft has a number: its place among all drafts, in the order of the raw stories. Of a shard there are
  drafts.jsonl  two lines a draft: the candidate, and the exchange it may become
  cards.npy     CARD of each: what decides with which others it is compared
  texts.npy, prompts.npy  (bands, drafts, rows) uint32: MinHash of its text and its prompt, 0 of none
  sketches.npy  one after the other
"""

import json
from bisect import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, read_json, read_jsonl, write_json
from storyforge.core.records import Story
from storyforge.core.storage import Work
from storyforge.preprocess.corpus import Bands, Candidate
from storyforge.preprocess.overlap import Sketch

# 64 bits each. What they find to be a copy or one prompt is compared again, by its text; groups and stories
# are taken to be equal where they are: of a million two are so by accident once in 37 million runs.
HASHES = ("group", "story", "prompt", "fingerprint", "rank")
CARD = np.dtype(
    [(name, np.uint64) for name in HASHES]
    + [("start", np.int64), ("sketched", np.int32), ("rejected", bool), ("by_prompt", bool)]
)
LEAST_BYTES, MOST_BYTES, MOST = 1 << 18, 8 << 20, 64  # of a shard's stories; shards until those are reached
WHOLE = "read.json"  # of a shard's files the last
Numbers = np.ndarray  # (bands.numbers,) uint32


@dataclass(frozen=True, slots=True)
class Shard:
    """The stories whose lines begin in these bytes of a file."""

    number: int
    path: Path
    start: int
    end: int

    def named(self) -> str:
        stories = [story.id for story in self.stories()]
        return f"{self.path}, from story {stories[0]} to {stories[-1]}"

    def stories(self) -> Iterator[Story]:
        for story in read_jsonl(self.path, Story, self.start, self.end):
            if story.source != self.path.stem:
                raise UserError(
                    f"{self.path}: story {story.id} is of source {story.source!r}, not of {self.path.stem!r}"
                )
            yield story


def cut(files: Sequence[Path]) -> list[Shard]:
    """By the files' bytes alone, between lines."""
    size = min(MOST_BYTES, max(LEAST_BYTES, sum(path.stat().st_size for path in files) // MOST))
    ranges = []
    for path in files:
        start, total = 0, path.stat().st_size
        with path.open("rb") as file:
            while start < total:
                file.seek(start + size)
                file.readline()
                ranges.append((path.absolute(), start, min(file.tell(), total)))
                start = ranges[-1][2]
    return [Shard(number, *each) for number, each in enumerate(ranges)]


@dataclass(frozen=True, slots=True)
class Examined:
    """A draft, and what is compared of it."""

    candidate: Candidate
    line: bytes
    hashes: tuple[int, ...]  # HASHES
    by_prompt: bool
    text: Numbers
    prompt: Numbers
    sketch: Sketch | None


def sent(work: Work, shard: Shard) -> Shard:
    """The same, once nodes that do not see its file can read it."""
    if work.is_stored:
        with shard.path.open("rb") as file, work.publishing(_raw(shard)) as piece:
            file.seek(shard.start)
            piece.write(file.read(shard.end - shard.start))
    return shard


def received(work: Work, shard: Shard) -> Shard:
    """As a node reads it: of a store the file begins with it."""
    if not work.is_stored:
        return shard
    return replace(shard, path=work.read(_raw(shard)), start=0, end=shard.end - shard.start)


def _raw(shard: Shard) -> str:
    return f"raw/{shard.number:06}/{shard.path.name}"


def store(
    work: Work, shard: Shard, examined: Iterable[Examined], read: Mapping[str, Any], bands: Bands
) -> None:
    """The folder of the shard, whole or not at all; `read` is complete once `examined` has ended.

    UserError on a machine that does not see the work folder.
    """
    work.require()
    cards, texts, prompts, sketches = [], [], [], [np.empty(0, np.uint32)]
    with work.publishing_folder(_folder(shard), WHOLE) as folder:
        with (folder / "drafts.jsonl").open("wb") as file:
            for each in examined:
                sketch = sketches[0] if each.sketch is None else each.sketch
                rejected = bool(each.candidate.reasons)
                cards.append((*each.hashes, file.tell(), len(sketch), rejected, each.by_prompt))
                file.write(dumps(each.candidate).encode() + b"\n" + each.line)
                texts.append(each.text)
                prompts.append(each.prompt)
                sketches.append(sketch)
        np.save(folder / "cards.npy", np.array(cards, CARD))
        for name, numbers in (("texts", texts), ("prompts", prompts)):
            whole = np.array(numbers, np.uint32).reshape(-1, *bands)
            np.save(folder / f"{name}.npy", np.ascontiguousarray(whole.swapaxes(0, 1)))
        np.save(folder / "sketches.npy", np.concatenate(sketches))
        write_json(folder / WHOLE, read)


@dataclass(frozen=True)
class Spool:
    """All drafts of the shards that were examined."""

    work: Work
    shards: tuple[Shard, ...]
    starts: tuple[int, ...]  # number of each shard's first draft; last, how many there are

    @classmethod
    def of(cls, work: Work, shards: Sequence[Shard]) -> "Spool":
        _fetch(work, shards, "cards.npy", WHOLE)
        counts = [len(_array(work, shard, "cards")) for shard in shards]
        return cls(work, tuple(shards), (0, *map(int, np.cumsum(counts))))

    def __len__(self) -> int:
        return self.starts[-1]

    def column(self, name: str) -> np.ndarray:
        """(drafts,): one field of CARD."""
        columns = [_array(self.work, shard, "cards")[name] for shard in self.shards]
        return np.concatenate([np.empty(0, CARD[name]), *columns])

    def of_source(self) -> dict[str, slice]:
        """Source → its drafts, in the order of the shards."""
        found: dict[str, slice] = {}
        for shard, start, end in zip(self.shards, self.starts, self.starts[1:], strict=False):
            first = found.get(shard.path.stem, slice(start, end)).start
            found[shard.path.stem] = slice(first, end)
        return found

    def keep(self, name: str, array: np.ndarray) -> None:
        """For tasks that need it beside their items; under a name once, as all that lies there."""
        with self.work.publishing(f"{name}.npy") as file:
            np.save(file, array)

    def kept(self, name: str) -> np.ndarray:
        return np.load(self.work.read(f"{name}.npy"))

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Source and what was counted as it was read, of each shard."""
        for shard in self.shards:
            yield shard.path.stem, read_json(_file(self.work, shard, WHOLE))

    def band(self, kind: str, band: int, among: np.ndarray) -> np.ndarray:
        """(drafts, rows) uint32: the band's numbers, of the texts or the prompts, of the drafts `among`."""
        _fetch(self.work, self.shards, f"{kind}.npy")
        return np.concatenate(
            [_array(self.work, shard, kind)[band, mine] for shard, mine in self._shares(among)]
        )

    def numbers(self, kind: str, drafts: np.ndarray) -> np.ndarray:
        """(drafts, bands.numbers) uint32, in their order."""
        bands, _, rows = _array(self.work, self.shards[0], kind).shape
        found = np.empty((len(drafts), bands * rows), np.uint32)
        order = np.argsort(drafts, kind="stable")
        done = 0
        for shard, mine in self._shares(drafts[order]):
            whole = _array(self.work, shard, kind)[:, mine].swapaxes(0, 1).reshape(-1, bands * rows)
            found[order[done : done + len(mine)]] = whole
            done += len(mine)
        return found

    def sketches(self, drafts: np.ndarray) -> Iterator[Sketch]:
        """Of drafts in ascending order."""
        for shard, mine in self._shares(drafts):
            ends = np.cumsum(_array(self.work, shard, "cards")["sketched"])
            whole = _array(self.work, shard, "sketches")
            for number in mine:
                yield np.array(whole[ends[number - 1] if number else 0 : ends[number]])

    def _shares(self, drafts: np.ndarray) -> Iterator[tuple[Shard, np.ndarray]]:
        """Of ascending drafts, those of each shard that has any, by their places in it."""
        borders = np.searchsorted(drafts, self.starts)
        for shard, start, (a, b) in zip(self.shards, self.starts, pairwise(borders), strict=False):
            if a < b:
                yield shard, drafts[a:b] - start

    def draft(self, number: int) -> tuple[Candidate, bytes]:
        """A draft by its number, and its line."""
        place = bisect(self.starts, number) - 1
        shard = self.shards[place]
        with _file(self.work, shard, "drafts.jsonl").open("rb") as file:
            file.seek(_starts(self.work, shard)[number - self.starts[place]])
            return Candidate(**json.loads(file.readline())), file.readline()

    def drafts(self, shard: Shard) -> Iterator[tuple[Candidate, bytes]]:
        """All of a shard."""
        with _file(self.work, shard, "drafts.jsonl").open("rb") as file:
            for known in file:
                yield Candidate(**json.loads(known)), file.readline()


def is_whole(names: set[str], shard: Shard) -> bool:
    """Whether all that is to be examined of it is among the names of the work folder."""
    return f"{_folder(shard)}/{WHOLE}" in names


def _folder(shard: Shard) -> str:
    return f"{shard.number:06}"


def _file(work: Work, shard: Shard, name: str) -> Path:
    return work.read(f"{_folder(shard)}/{name}")


def _fetch(work: Work, shards: Sequence[Shard], *names: str) -> None:
    work.fetch(f"{_folder(shard)}/{name}" for shard in shards for name in names)


def _array(work: Work, shard: Shard, name: str) -> np.ndarray:
    return np.load(_file(work, shard, f"{name}.npy"), mmap_mode="r")


@lru_cache(maxsize=256)
def _starts(work: Work, shard: Shard) -> np.ndarray:
    return np.array(_array(work, shard, "cards")["start"])


@contextmanager
def lines_of(work: Work, shard: Shard, names: Sequence[str]) -> Iterator[dict[str, BinaryIO]]:
    """A file of the shard for each of the names, to be `joined`."""
    with ExitStack() as stack:
        files = (work.publishing(f"{_folder(shard)}/{name}.jsonl") for name in names)
        yield {name: stack.enter_context(file) for name, file in zip(names, files, strict=True)}


def joined(work: Work, shards: Sequence[Shard], name: str) -> Iterator[bytes]:
    """The lines of those files of all shards."""
    _fetch(work, shards, f"{name}.jsonl")
    for shard in shards:
        with _file(work, shard, f"{name}.jsonl").open("rb") as lines:
            yield from lines
