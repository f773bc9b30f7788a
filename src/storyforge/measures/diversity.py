"""How varied texts are, and how much of them stands word for word in the training text.

Every number here changes with length: compare only texts of equally many words.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np

from storyforge.core.words import Gram, grams, words

COPIED_RUN = 8  # words; shorter runs are common phrases (after Lu et al. 2024, arXiv:2410.04265)
LONGEST_GRAM = 4  # BLEU's
NO_MATCH = 0.1  # of a gram, where none matches: smoothing 1 of Chen and Cherry 2014, as Texygen has it
Words = Sequence[str]


def distinct(text: Words, n: int) -> float:
    """Share of n-grams that differ (Li et al. 2016); 1 less this is seq-rep-n (Welleck et al. 2020)."""
    runs = grams(text, n)
    return len(set(runs)) / len(runs)


def longest_repeat(text: Words) -> int:
    """Words in the longest run that occurs twice in the text; the two may overlap."""

    def all_differ(n: int) -> bool:
        runs = grams(text, n)
        return len(set(runs)) == len(runs)

    # Where no run of n words occurs twice, no longer one does: the lengths are sorted by `all_differ`.
    return bisect_left(range(1, len(text) + 1), True, key=all_differ)


def copied_runs(texts: Iterable[Words], training: Iterable[str]) -> frozenset[Gram]:
    """The runs of COPIED_RUN words that both `texts` and training stories have.

    `training` is read once, one story at a time: memory grows with the texts, not with the stories.
    """
    wanted = set(chain.from_iterable(grams(text, COPIED_RUN) for text in texts))
    copied: set[Gram] = set()
    for story in training:
        copied |= wanted.intersection(grams(words(story), COPIED_RUN))
    return frozenset(copied)


def copied_share(text: Words, copied: frozenset[Gram]) -> float:
    """Of the text's runs of COPIED_RUN words, the share that is among the copied."""
    runs = grams(text, COPIED_RUN)
    return sum(run in copied for run in runs) / len(runs)


def self_bleu(texts: Sequence[Words]) -> float:
    """Mean BLEU-4 of each text with all the others as references, 0 to 1 (Zhu et al. 2018, Texygen).

    For texts of one length, so that there is no brevity penalty.
    """
    logs = np.zeros(len(texts))  # of each text: the summed logarithms of its precisions for n = 1 to 4
    for n in range(1, LONGEST_GRAM + 1):
        counts = [Counter(grams(text, n)) for text in texts]
        most, second = _two_most(counts)
        for number, own in enumerate(counts):
            # BLEU counts a gram as often as one reference has it. The references are all *other* texts:
            # the most that any of them has is the second most of all, where this text has the most.
            clipped = sum(
                min(count, second[gram] if count == most[gram] else most[gram]) for gram, count in own.items()
            )
            logs[number] += math.log((clipped or NO_MATCH) / own.total())
    return float(np.exp(logs / LONGEST_GRAM).mean())


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
