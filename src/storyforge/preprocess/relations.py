"""Which of many drafts may be alike, by their MinHash numbers: families, to be judged one by one."""

from collections.abc import Iterator
from itertools import count, pairwise

import numpy as np

from storyforge.preprocess.corpus import LEAST_EQUAL
from storyforge.preprocess.shards import Spool

CROWD = 64  # drafts in one bucket; of more, not each is compared with each
CHUNK = 1 << 14  # pairs compared at once
ODD = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads the numbers of a band over 64 bits
Pairs = np.ndarray  # (pairs, 2) int64, draft numbers


def alike(spool: Spool, kind: str, drafts: np.ndarray, band: int) -> Pairs:
    """Those of the drafts, ascending, that share this band and LEAST_EQUAL of their numbers.

    In a bucket of more than CROWD, neighbours count as alike unseen: a family may be too large, never too
    small.
    """
    found = [np.empty((0, 2), np.int64)]
    if not len(drafts):
        return found[0]
    keys = np.zeros(len(drafts), np.uint64)
    for numbers in spool.band(kind, band, drafts).T:
        keys = (keys ^ numbers) * ODD
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    keys, drafts = keys[order], drafts[order]
    for apart in count(1):
        places = np.flatnonzero(keys[apart:] == keys[:-apart])
        if not len(places):
            break
        pairs = np.stack([drafts[places], drafts[places + apart]], axis=1)
        if apart == CROWD:
            crowded = np.unique(keys[places])
            in_crowds = np.flatnonzero((keys[1:] == keys[:-1]) & np.isin(keys[1:], crowded))
            found.append(np.stack([drafts[in_crowds], drafts[in_crowds + 1]], axis=1))
            break
        found.append(pairs[_equal(spool, kind, pairs)])
    return np.concatenate(found)


def _equal(spool: Spool, kind: str, pairs: Pairs) -> np.ndarray:
    """(pairs,) bool"""
    found = [np.empty(0, bool)]
    for start in range(0, len(pairs), CHUNK):
        a, b = (spool.numbers(kind, drafts) for drafts in pairs[start : start + CHUNK].T)
        found.append((a == b).mean(axis=1) >= LEAST_EQUAL)
    return np.concatenate(found)


def connected(pairs: np.ndarray, nodes: int) -> np.ndarray:
    """(nodes,) for each the lowest that it is connected to."""
    roots = np.arange(nodes)
    a, b = pairs.T
    while (roots[a] != roots[b]).any():
        lower = np.minimum(roots[a], roots[b])
        for end in (a, b):
            np.minimum.at(roots, roots[end], lower)
        while (roots[roots] != roots).any():
            roots = roots[roots]
    return roots


def families(labels: np.ndarray, members: np.ndarray) -> Iterator[np.ndarray]:
    """The members of each label, which is parallel to them, in ascending order."""
    order = np.lexsort((members, labels))
    labels, members = labels[order], members[order]
    borders = [0, *(np.flatnonzero(np.diff(labels)) + 1), len(labels)]
    yield from (members[a:b] for a, b in pairwise(borders) if a < b)


def equal(keys: np.ndarray, drafts: np.ndarray) -> Pairs:
    """Neighbours among the drafts of equal keys, which are parallel to them."""
    order = np.argsort(keys, kind="stable")
    keys, drafts = keys[order], drafts[order]
    places = np.flatnonzero(keys[1:] == keys[:-1])
    return np.stack([drafts[places], drafts[places + 1]], axis=1)
