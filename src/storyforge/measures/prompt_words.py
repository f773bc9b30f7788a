"""What a prompt asks a text for: uncommon words, a length."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from storyforge.core.words import words

COMMON = 0.02  # share of texts; a word that more of them have says nothing of one prompt
STEM = 4  # letters that must agree; longer words may differ in their last SUFFIX letters
SUFFIX = 2
ASKED = re.compile(r"(\d[\d,]*)(?:\s*(?:-|–|to|and|or)\s*(\d[\d,]*))?[\s-]words?\b", re.IGNORECASE)
LEAST_ASKED = 20  # words; less is no length but a part of the task: "without these three words"


def common_words(texts: Sequence[tuple[str, str]]) -> frozenset[str]:
    """The words that a share of COMMON of the (group, text) pairs have, in more than one group.

    What one group alone has is its names: "Hamlet" is in every passage of one play and tells its prompts
    from all others.
    """
    counts: Counter[str] = Counter()
    groups: dict[str, set[str]] = defaultdict(set)
    for group, text in texts:
        for word in set(words(text)):
            counts[word] += 1
            groups[word].add(group)
    return frozenset(
        word for word, count in counts.items() if count >= COMMON * len(texts) and len(groups[word]) > 1
    )


def elements(prompt: str, common: frozenset[str]) -> frozenset[str]:
    """The beginnings of a prompt's uncommon words: what an answer is expected to mention.

    Beginnings, so that "ferries" answers "ferry" without a stemmer of one language.
    """
    own = {word for word in words(prompt) if len(word) >= STEM} - common
    return frozenset(word[: max(STEM, len(word) - SUFFIX)] for word in own)


def covered(wanted: frozenset[str], text: str) -> float | None:
    """Share of the elements that a word of the text begins with; None where nothing is wanted."""
    if not wanted:
        return None
    said = words(text)
    return sum(any(word.startswith(element) for word in said) for element in wanted) / len(wanted)


def words_ratio(prompt: str, count: int) -> float | None:
    """Words written for each one asked for, 1 inside the range; None where no length is asked for."""
    numbers = [
        [int(number.replace(",", "")) for number in match.groups() if number]
        for match in ASKED.finditer(prompt)
    ]
    # The first number or range that can be a length: a prompt may count its words ("these 3 words") too.
    asked = next((found for found in numbers if min(found) >= LEAST_ASKED), None)
    return count / min(max(count, min(asked)), max(asked)) if asked else None
