"""Words as rules and measures count them: casefolded, without what stands between them."""

import re
from collections.abc import Sequence

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """An apostrophe inside belongs to its word."""
    return WORD.findall(text.casefold())


def grams(words: Sequence[str], n: int) -> list[Gram]:
    """Every run of `n` words; none of a text that has fewer."""
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def opening(text: str, count: int) -> str | None:
    """The text up to its `count`-th word, None where it has fewer: equal budgets, or no comparison."""
    for number, match in enumerate(WORD.finditer(text), 1):
        if number == count:
            return text[: match.end()]
    return None
