"""Training text that stands in held-out text too, or holds much of it: drafts, anthologies, excerpts.

Works on sketches, a sample of a text's shingles, so that memory holds no texts: the share of one sketch in
another estimates the share of its text (scaled MinHash: Irber et al. 2022).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

if TYPE_CHECKING:  # which imports this module
    from storyforge.preprocess.corpus import Candidate

SAMPLED = 4  # one shingle of so many is in a sketch
CONTAINED = 0.3  # of the smaller text's shingles; two texts of their own share less than 0.1
LEAST_COMMON = 8  # hashes, some 32 shingles; of short texts fewer may reach that share by chance
Sketch = np.ndarray  # (shingles,) uint32, sorted, each once


def sketch(shingles: Iterable[str]) -> Sketch:
    """The same shingles are taken of every text, so that texts compare."""
    hashes = np.fromiter(map(crc32, map(str.encode, shingles)), np.uint32)
    return np.unique(hashes[hashes % SAMPLED == 0])


def overlaps(candidates: "Sequence[Candidate]") -> "Iterator[tuple[Candidate, str]]":
    """Rows for training that must go, each with the reason; `candidates` are those that stay.

    A row goes that shares CONTAINED with a held-out row, by the smaller of the two, or that much of itself
    with a held-out work; all rows of a work go of which that much stands in a held-out work.
    """
    held_out = [row for row in candidates if row.side != "train"]
    training = [row for row in candidates if row.side == "train"]
    index = _Index([row.sketch for row in held_out])
    works = [(row.source, row.work) for row in held_out]
    shared: dict[tuple, list[Sketch]] = defaultdict(list)  # training work, held-out work → hashes in both
    gone: dict[int, str] = {}  # by number in `training`
    for number, row in enumerate(training):
        by_work: dict[tuple, list[Sketch]] = defaultdict(list)
        for other, common in index.found(row.sketch):
            by_work[works[other]].append(common)
            if _much(len(common), min(len(row.sketch), len(held_out[other].sketch))):
                gone.setdefault(number, f"shares text with {held_out[other].id}, which is held out")
        for work, parts in by_work.items():
            common = _united(parts)
            shared[(row.source, row.work), work].append(common)
            if _much(len(common), len(row.sketch)):
                gone.setdefault(number, f"shares text with {work[1]}, which is held out")
    rows_of: dict[tuple, list[int]] = defaultdict(list)
    for number, row in enumerate(training):
        rows_of[row.source, row.work].append(number)
    sizes: dict[tuple, int] = {}
    for (work, held_out_work), parts in shared.items():
        if (common := len(_united(parts))) < LEAST_COMMON:
            continue
        if work not in sizes:
            sizes[work] = len(_united([training[number].sketch for number in rows_of[work]]))
        if _much(common, sizes[work]):
            for number in rows_of[work]:
                gone.setdefault(number, f"its work shares text with {held_out_work[1]}, which is held out")
    yield from ((training[number], why) for number, why in sorted(gone.items()))


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
