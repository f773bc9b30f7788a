"""How much of a text is repeated, as Rae et al. 2021 (Gopher, arXiv:2112.11446, table A1) measure it.

Shares are of letters in words, so that neither spaces nor a splitter's taste move them.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# n → largest share of letters that the most frequent n-gram may take up, and that n-grams said before may.
MOST_FREQUENT = {2: 0.20, 3: 0.18, 4: 0.16}
SAID_BEFORE = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
LINES = 0.30  # largest share of lines said before; LINE_LETTERS of their letters
LINE_LETTERS = 0.20
SHORTEST_LINE = 4  # words; names and exclamations come again in any dialogue
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd and without a pattern: sums of small ids do not meet


def lines_said_before(lines: Sequence[str]) -> tuple[float, float]:
    """Share of the longer lines that repeat an earlier one, and their share of letters."""
    counts = Counter(
        " ".join(line.split()).casefold() for line in lines if line.count(" ") >= SHORTEST_LINE - 1
    )
    if not counts:
        return 0.0, 0.0
    again = sum(count - 1 for count in counts.values())
    letters = sum(len(line) * count for line, count in counts.items())
    return again / counts.total(), sum(len(line) * (count - 1) for line, count in counts.items()) / letters


@dataclass(frozen=True, slots=True)
class Numbered:
    """A text's words as numbers, the same word the same number, and where its letters are."""

    ids: np.ndarray
    letters: np.ndarray  # how many stand before each word, and last how many there are


def numbered(words: Sequence[str]) -> Numbered:
    numbers = dict(zip(dict.fromkeys(words), range(1, len(words) + 1), strict=False))
    ids = np.fromiter(map(numbers.__getitem__, words), np.uint64, len(words))
    return Numbered(ids, np.cumsum([0, *map(len, words)]))


def most_frequent(text: Numbered) -> dict[int, float]:
    """For n of 2 to 4 the share of letters in the most frequent n-gram; 0 where none comes twice."""
    shares = {}
    for n in MOST_FREQUENT:
        _, first, counts = np.unique(_grams(text.ids, n), return_index=True, return_counts=True)
        top = counts.max(initial=0)
        starts = first[counts == top]
        longest = (text.letters[starts + n] - text.letters[starts]).max(initial=0)
        shares[n] = float(top * longest / text.letters[-1]) if top > 1 else 0.0
    return shares


def said_before(text: Numbered) -> dict[int, float]:
    """For n of 5 to 10 the share of letters inside n-grams that stand earlier in the text too.

    Longer n-grams cover no more than shorter ones: where 5-grams stay below the lowest bound, so do the rest.
    """
    lengths = np.diff(text.letters)
    shares: dict[int, float] = {}
    for n in SAID_BEFORE:
        grams = _grams(text.ids, n)
        again = np.ones(len(grams), dtype=bool)
        again[np.unique(grams, return_index=True)[1]] = False
        covered = np.convolve(again, np.ones(n, dtype=int)) > 0 if again.any() else slice(0)
        shares[n] = float(lengths[covered].sum() / max(1, text.letters[-1]))
        if shares[n] <= min(SAID_BEFORE.values()):
            return shares | {longer: shares[n] for longer in SAID_BEFORE if longer > n}
    return shares


def _grams(ids: np.ndarray, n: int) -> np.ndarray:
    """One number for each n-gram, in order; equal numbers for equal n-grams."""
    count = max(0, len(ids) - n + 1)
    grams = ids[:count]
    for offset in range(1, n):
        grams = grams * MULTIPLIER + ids[offset : offset + count]
    return grams
