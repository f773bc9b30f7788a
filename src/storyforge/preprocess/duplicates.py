"""Texts that say the same: fingerprints of exact copies, and MinHash for near ones.

Candidates come from locality-sensitive hashing (Leskovec et al., Mining of Massive Datasets, section 3.4).
Each is verified on the texts: the bands decide what is found, never what is called a duplicate.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from rensa import RMinHash

from storyforge.preprocess.repetition import MULTIPLIER

PERMUTATIONS = 128
ROWS = 4  # of a band; 32 bands find a pair of Jaccard similarity 0.7 in 99.98 % of cases, of 0.5 in 87 %
LEAST_EQUAL = 0.5  # of the numbers; of texts as similar as 0.7 one pair in a million has fewer
SEED = 1
Same = Callable[[int, int], bool]


def fingerprint(words: Sequence[str]) -> bytes:
    """Equal for texts whose letters and digits are the same; `words` are casefolded."""
    letters = "".join(words).replace("'", "").replace("’", "")
    return hashlib.sha256(letters.encode()).digest()[:16]


def shingles(words: Sequence[str], length: int) -> frozenset[str]:
    """Every run of so many words; of a shorter text the whole."""
    if len(words) <= length:
        return frozenset((" ".join(words),))
    return frozenset(map(" ".join, zip(*(words[start:] for start in range(length)), strict=False)))


def signature(grams: Iterable[str]) -> bytes:
    """PERMUTATIONS numbers of 32 bits; the order of the grams does not matter."""
    sketch = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
    sketch.update(list(grams))
    return np.array(sketch.digest(), dtype="<u4").tobytes()


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def repeats(signatures: Sequence[bytes], order: Iterable[int], same: Same) -> dict[int, int]:
    """Text → the earlier one in `order` that it repeats; no two of the others are the same.

    Compared with those that stay only, so that a thousand copies cost a thousand comparisons, not a million.
    """
    table = _table(signatures)
    shared = _buckets(table)
    staying: dict[int, list[int]] = defaultdict(list)
    repeated: dict[int, int] = {}
    for text in order:
        earlier = sorted({other for bucket in shared.get(text, ()) for other in staying[bucket]})
        likely = (other for other in earlier if _likely(table, other, text) and same(other, text))
        original = next(likely, None)
        if original is not None:
            repeated[text] = original
            continue
        for bucket in shared.get(text, ()):
            staying[bucket].append(text)
    return repeated


def clusters(signatures: Sequence[bytes], same: Same) -> list[int]:
    """For each text the lowest number among all it is connected to through pairs that are the same."""
    table = _table(signatures)
    shared = _buckets(table)
    parents = list(range(len(signatures)))
    members: dict[int, list[int]] = defaultdict(list)
    for text in sorted(shared):
        for other in sorted({other for bucket in shared[text] for other in members[bucket]}):
            low, high = sorted((_root(parents, other), _root(parents, text)))
            if low != high and _likely(table, other, text) and same(other, text):
                parents[high] = low
        for bucket in shared[text]:
            members[bucket].append(text)
    return [_root(parents, text) for text in range(len(parents))]


def _table(signatures: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(signatures), dtype="<u4").reshape(len(signatures), PERMUTATIONS)


def _buckets(table: np.ndarray) -> dict[int, list[int]]:
    """For each text that shares a band with another, the buckets it falls into."""
    shared: dict[int, list[int]] = defaultdict(list)
    number = 0
    for start in range(0, PERMUTATIONS, ROWS):
        band = np.zeros(len(table), dtype=np.uint64)
        for column in range(start, start + ROWS):
            band = band * MULTIPLIER + table[:, column]
        _, bucket, counts = np.unique(band, return_inverse=True, return_counts=True)
        for text in np.flatnonzero(counts[bucket] > 1):
            shared[int(text)].append(number + int(bucket[text]))
        number += len(counts)
    return shared


def _likely(table: np.ndarray, a: int, b: int) -> bool:
    """Whether it is worth reading the texts: on average signatures agree as much as shingles do."""
    return np.count_nonzero(table[a] == table[b]) >= LEAST_EQUAL * PERMUTATIONS


def _root(parents: list[int], text: int) -> int:
    while parents[text] != text:
        parents[text] = text = parents[parents[text]]
    return text
