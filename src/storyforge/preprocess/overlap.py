"""Training text that stands in held-out text too, or holds much of it: drafts, anthologies, excerpts.

Works on sketches, a sample of a text's shingles, so that memory holds no texts: the share of one sketch in
another estimates the share of its text (scaled MinHash: Irber et al. 2022).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np

SAMPLED = 4  # one shingle of so many is in a sketch
CONTAINED = 0.3  # of the smaller text's shingles; two texts of their own share less than 0.1
LEAST_COMMON = 8  # hashes, some 32 shingles; of short texts fewer may reach that share by chance
Sketch = np.ndarray  # (shingles,) uint32, sorted, each once


@dataclass(frozen=True, slots=True)
class Row:
    """A draft that stays."""

    number: int  # its place among all
    work: int  # equal for the rows of one work
    held_out: bool
    sketch: Sketch


def sketch(shingles: Iterable[str]) -> Sketch:
    """The same shingles are taken of every text, so that texts compare."""
    hashes = np.fromiter(map(crc32, map(str.encode, shingles)), np.uint32)
    return np.unique(hashes[hashes % SAMPLED == 0])


def overlaps(rows: Iterable[Row]) -> Iterator[tuple[int, int, bool, bool]]:
    """Training rows that must go, by number; the held-out row whose text each has; and on which grounds.

    A row goes that shares CONTAINED with a held-out row, by the smaller of the two, or that much of itself
    with a held-out work; all rows of a work go of which that much stands in a held-out work. Grounds: whether
    it is for its whole work that it goes, and whether for the other's.
    """
    rows = list(rows)
    held_out = [row for row in rows if row.held_out]
    training = [row for row in rows if not row.held_out]
    index = _Index([row.sketch for row in held_out])
    first_of: dict[int, int] = {}  # held-out work → number of its first row
    for row in held_out:
        first_of.setdefault(row.work, row.number)
    shared: dict[tuple[int, int], list[Sketch]] = defaultdict(
        list
    )  # training and held-out work → hashes in both
    gone: dict[int, tuple[int, bool, bool]] = {}  # by place in `training`
    for place, row in enumerate(training):
        by_work: dict[int, list[Sketch]] = defaultdict(list)
        for other, common in index.found(row.sketch):
            by_work[held_out[other].work].append(common)
            if _much(len(common), min(len(row.sketch), len(held_out[other].sketch))):
                gone.setdefault(place, (held_out[other].number, False, False))
        for work, parts in by_work.items():
            common = _united(parts)
            shared[row.work, work].append(common)
            if _much(len(common), len(row.sketch)):
                gone.setdefault(place, (first_of[work], False, True))
    places_of: dict[int, list[int]] = defaultdict(list)
    for place, row in enumerate(training):
        places_of[row.work].append(place)
    sizes: dict[int, int] = {}
    for (work, held_out_work), parts in shared.items():
        if (common := len(_united(parts))) < LEAST_COMMON:
            continue
        if work not in sizes:
            sizes[work] = len(_united([training[place].sketch for place in places_of[work]]))
        if _much(common, sizes[work]):
            for place in places_of[work]:
                gone.setdefault(place, (first_of[held_out_work], True, True))
    yield from ((training[place].number, *why) for place, why in sorted(gone.items()))


def said(other: str, whole: bool) -> str:
    """Why a row goes that has text of `other`, a row or a work."""
    return f"{'its work ' if whole else ''}shares text with {other}, which is held out"


def _united(sketches: Sequence[Sketch]) -> Sketch:
    return sketches[0] if len(sketches) == 1 else np.unique(np.concatenate(sketches))


def _much(common: int, of: int) -> bool:
    return common >= max(LEAST_COMMON, CONTAINED * of)


class _Index:
    """Which of many sketches hold a hash."""

    def __init__(self, sketches: Sequence[Sketch]):
        owners = np.repeat(np.arange(len(sketches)), [len(each) for each in sketches])
        hashes = np.concatenate([np.empty(0, np.uint32), *sketches])
        order = np.argsort(hashes, kind="stable")
        self.hashes, self.owners = hashes[order], owners[order]

    def found(self, sketch: Sketch) -> Iterator[tuple[int, Sketch]]:
        """Number of each sketch that shares a hash with this one, and what it shares."""
        starts = np.searchsorted(self.hashes, sketch)
        known = starts < len(self.hashes)
        known[known] = self.hashes[starts[known]] == sketch[known]
        if not known.any():
            return
        ends = np.searchsorted(self.hashes, sketch[known], "right")
        owners = [self.owners[a:b] for a, b in zip(starts[known], ends, strict=True)]
        hashes = np.repeat(sketch[known], list(map(len, owners)))
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        owner, hashes = owner[order], hashes[order]
        borders = [0, *(np.flatnonzero(np.diff(owner)) + 1), len(owner)]
        yield from ((int(owner[a]), hashes[a:b]) for a, b in pairwise(borders))
