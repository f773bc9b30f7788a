"""Words as rules and measures count them: casefolded, without what stands between them."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

# Scripts that put no spaces between words (Thai to Khmer, kana, ideographs): each character counts as one.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    r"\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[^\W_{UNSPACED}]+(?:['’][^\W_{UNSPACED}]+)*|[{UNSPACED}]")
Gram = tuple[str, ...]
PROMPT_SHINGLE = 3  # words, where prompts are compared: they are short
SHARES = {"min": 0.0, "p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}


def words(text: str) -> list[str]:
    """An apostrophe inside belongs to its word."""
    return WORD.findall(text.casefold())


def grams(words: Sequence[str], n: int) -> list[Gram]:
    """Every run of `n` words; none of a text that has fewer."""
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def shingles(words: Sequence[str], length: int) -> frozenset[str]:
    """Every run of so many words; of a shorter text the whole."""
    if len(words) <= length:
        return frozenset((" ".join(words),))
    return frozenset(map(" ".join, zip(*(words[start:] for start in range(length)), strict=False)))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / max(1, len(a | b))


def opening(text: str, count: int) -> str | None:
    """The text up to its `count`-th word, None where it has fewer: equal budgets, or no comparison."""
    for number, match in enumerate(WORD.finditer(text), 1):
        if number == count:
            return text[: match.end()]
    return None


def quantiles(counts: Counter[int]) -> dict[str, int]:
    """For each share the lowest value that at least that share does not exceed; {} of nothing."""
    values = sorted(counts)
    reached = list(accumulate(counts[value] for value in values))
    return {
        name: values[bisect_left(reached, share * reached[-1])] for name, share in SHARES.items() if values
    }
