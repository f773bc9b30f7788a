"""Corpus: what checks know of the stories that a writer was trained on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.measures.diversity import COPIED_RUN
from storyforge.measures.prompt_words import common_words

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: the numbers of two runs do not meet


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    common: frozenset[str]  # words of prompts that say nothing of one prompt
    numbers: dict[str, int]  # of every word of the stories, from 1
    runs: np.ndarray  # sorted, one number for every run of COPIED_RUN words: 8 bytes a word of the stories

    def copied(self, text: Sequence[str]) -> np.ndarray:
        """Of each run of COPIED_RUN words whether a story has it: (words - COPIED_RUN + 1,), boolean."""
        found = _runs([self.numbers.get(word, 0) for word in text])
        if not len(self.runs):
            return np.zeros(len(found), dtype=bool)
        places = np.searchsorted(self.runs, found)
        return self.runs[np.minimum(places, len(self.runs) - 1)] == found


def corpus(train: Iterable[Exchange]) -> Corpus:
    """The facts of the stories, which are read once.

    Leave out the stories that are scored themselves, as the human texts beside a writer's: of what is in
    here every word is known and every run copied.
    """
    prompts: list[tuple[str, str]] = []
    numbers: dict[str, int] = {}
    runs: list[np.ndarray] = []
    for row in train:
        prompts.append((row.group, row.prompt))
        runs.append(_runs([numbers.setdefault(word, len(numbers) + 1) for word in words(row.story)]))
    return Corpus(common_words(prompts), numbers, np.unique(np.concatenate([_runs([]), *runs])))


def _runs(numbers: Sequence[int]) -> np.ndarray:
    """One number for each run of COPIED_RUN words, in order."""
    ids = np.array(numbers, dtype=np.uint64)
    count = max(0, len(ids) - COPIED_RUN + 1)
    found = np.zeros(count, dtype=np.uint64)
    for offset in range(COPIED_RUN):
        found = found * MULTIPLIER + ids[offset : offset + count]
    return found
