"""How much of a text stands word for word in the training text (after Lu et al. 2024, arXiv:2410.04265)."""

from collections.abc import Iterable, Sequence
from itertools import chain

from storyforge.core.words import Gram, grams, words

RUNS = (8, 13)  # words: a phrase that may be common, and one that is no accident


def copied_runs(texts: Sequence[Sequence[str]], training: Iterable[str]) -> frozenset[Gram]:
    """The runs of `texts` that training stories have too.

    Holds the runs of the texts, never those of the stories, which may be any number.
    """
    wanted = {n: set(chain.from_iterable(grams(text, n) for text in texts)) for n in RUNS}
    copied: set[Gram] = set()
    for story in training:
        known = words(story)
        for n in RUNS:
            found = wanted[n].intersection(grams(known, n))
            if not found:
                break  # nor can a longer one be there
            copied |= found
    return frozenset(copied)


def copied_share(text: Sequence[str], n: int, copied: frozenset[Gram]) -> float:
    """Of the text's runs of `n` words, the share that is among the copied."""
    runs = grams(text, n)
    return sum(run in copied for run in runs) / len(runs)
