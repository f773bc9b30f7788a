"""How varied writing is, inside a text and between texts.

Every number here falls or rises with length: only texts of equally many words compare.
"""

import math
import zlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from storyforge.core.words import grams

LONGEST_GRAM = 4  # BLEU's
NO_MATCH = 0.1  # of a gram, where none matches: smoothing 1 of Chen and Cherry 2014, as Texygen has it
LOOP_TIMES = 3
LOOP_WORDS = 12  # "never, never, never, never, never" is no loop
Words = Sequence[str]


def distinct(words: Words, n: int) -> float:
    """Share of n-grams that differ (Li et al. 2016); 1 less this is seq-rep-n (Welleck et al. 2020)."""
    runs = grams(words, n)
    return len(set(runs)) / len(runs)


def longest_repeat(words: Words) -> int:
    """Words in the longest run that stands in the text twice; the two may overlap."""

    def all_differ(n: int) -> bool:
        runs = grams(words, n)
        return len(set(runs)) == len(runs)

    # Where no run of n words comes twice, no longer one does.
    return bisect_left(range(1, len(words) + 1), True, key=all_differ)


def looping(words: Words) -> bool:
    """Whether some words come LOOP_TIMES in a row, in LOOP_WORDS words or more altogether."""
    numbers = {word: number for number, word in enumerate(words)}
    ids = np.array([numbers[word] for word in words])
    for period in range(1, len(ids) // LOOP_TIMES + 1):
        unlike = np.flatnonzero(ids[period:] != ids[:-period])
        run = np.diff(unlike, prepend=-1, append=len(ids) - period).max() - 1
        # A run of n words equal to those a period before is n + period words said over and over.
        if run + period >= max(LOOP_TIMES * period, LOOP_WORDS):
            return True
    return False


def gzip_ratio(texts: Sequence[str]) -> float:
    """Bytes of the texts for each byte of them compressed together: 1 and up, more where they say the same
    (Shaib et al. 2024)."""
    data = "\n\n".join(texts).encode()
    return len(data) / len(zlib.compress(data, 9))


def self_bleu(texts: Sequence[Words]) -> float:
    """Mean BLEU-4 of each text with all the others as references, 0 to 1 (Zhu et al. 2018, Texygen).

    For texts of one length, so that there is no brevity penalty.
    """
    logs = np.zeros(len(texts))
    for n in range(1, LONGEST_GRAM + 1):
        counts = [Counter(grams(text, n)) for text in texts]
        most, second = _two_most(counts)
        for number, own in enumerate(counts):
            # The most that any *other* text has: the second most, where this one has the most.
            clipped = sum(
                min(count, second[gram] if count == most[gram] else most[gram]) for gram, count in own.items()
            )
            logs[number] += math.log((clipped or NO_MATCH) / own.total())
    return float(np.exp(logs / LONGEST_GRAM).mean())


def distance(texts: Sequence[Words]) -> float:
    """Mean over pairs of the share of their 2-grams that only one has: 0 the same, 1 nothing in common."""
    sets = [frozenset(grams(text, 2)) for text in texts]
    apart = [len(one ^ other) / len(one | other) for one, other in combinations(sets, 2)]
    return math.fsum(apart) / len(apart)


def _two_most(counts: Sequence[Counter]) -> tuple[Counter, Counter]:
    """For each gram the highest and the second highest of its counts; equal where two texts have the most."""
    most, second = Counter(), Counter()
    for own in counts:
        for gram, count in own.items():
            if count > most[gram]:
                most[gram], second[gram] = count, most[gram]
            elif count > second[gram]:
                second[gram] = count
    return most, second
