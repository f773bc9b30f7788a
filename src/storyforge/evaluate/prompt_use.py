"""Whether a text is an answer to its prompt, and whether a writer tells that prompt from others."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.evaluate.losses import difference

COMMON = 0.02  # share of texts; a word that more have is no sign of a premise
STEM = 4  # letters that must agree; of longer words all but ENDING
ENDING = 2
ASKED = re.compile(r"(\d[\d,]*)(?:\s*(?:-|–|to|and|or)\s*(\d[\d,]*))?[\s-]words?\b", re.IGNORECASE)
LEAST_ASKED = 20  # words; less is no length but a part of the task: "without these three words"


def common_words(texts: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Words that COMMON of the texts have, given with their groups: in one group alone they are its names."""
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
    """The beginnings of a prompt's uncommon words: what an answer is expected to speak of."""
    own = {word for word in words(prompt) if len(word) >= STEM} - common
    return frozenset(word[: max(STEM, len(word) - ENDING)] for word in own)


def covered(wanted: frozenset[str], text: str) -> float | None:
    """Share of the elements that a word of the text begins with; None where nothing is wanted."""
    said = words(text)
    return (
        sum(any(word.startswith(element) for word in said) for element in wanted) / len(wanted)
        if wanted
        else None
    )


def words_asked(prompt: str) -> tuple[int, int] | None:
    """The fewest and the most words a prompt asks for, the same where it gives one number."""
    numbers = [
        [int(number.replace(",", "")) for number in match.groups() if number]
        for match in ASKED.finditer(prompt)
    ]
    asked = next((found for found in numbers if min(found) >= LEAST_ASKED), None)
    return (min(asked), max(asked)) if asked else None


def words_ratio(prompt: str, count: int) -> float | None:
    """Words written for each one asked for, 1 inside the band; None where no length is asked for."""
    if (asked := words_asked(prompt)) is None:
        return None
    return count / min(max(count, asked[0]), asked[1])


def distractors(exchange: Exchange, others: Sequence[Exchange], count: int, seed: int) -> list[str]:
    """Up to `count` other prompts, of the same source and another group as far as there are any."""

    def distance(other: Exchange) -> tuple[bool, bool, int]:
        return (
            other.source != exchange.source,
            other.group == exchange.group,
            rank(f"{exchange.id}\0{other.id}", seed),
        )

    prompts = dict.fromkeys(other.prompt for other in sorted(others, key=distance))
    prompts.pop(exchange.prompt, None)
    return list(prompts)[:count]


@dataclass(frozen=True, slots=True)
class Choice:
    """NLLs in nats of one story's same tokens under several prompts, its own first, for both writers."""

    id: str
    group: str
    tokens: int
    base: tuple[float, ...]
    tuned: tuple[float, ...]


def prompt_use(choices: Sequence[Choice], seed: int) -> dict[str, Any] | None:
    """How often the own prompt makes a story likeliest (See et al. 2019), and what another one costs."""
    if not choices:
        return None
    gains = [(choice.group, _cost(choice.tuned) - _cost(choice.base), choice.tokens) for choice in choices]
    chances = math.fsum(1 / len(choice.base) for choice in choices) / len(choices)
    return {
        "stories": len(choices),
        "chance": round(chances, 6),
        **{writer: _writer(choices, writer) for writer in ("base", "tuned")},
        "shuffled_cost_gain": difference(gains, seed),
    }


def _writer(choices: Sequence[Choice], writer: str) -> dict[str, float]:
    nlls = [getattr(choice, writer) for choice in choices]
    tokens = sum(choice.tokens for choice in choices)
    own = math.fsum(nll[0] for nll in nlls) / tokens
    cost = math.fsum(map(_cost, nlls)) / tokens
    first = sum(nll[0] < min(nll[1:]) for nll in nlls) / len(nlls)
    return {
        "own_prompt_first": round(first, 6),
        "loss": round(own, 6),
        "shuffled_loss": round(own + cost, 6),
    }


def _cost(nlls: tuple[float, ...]) -> float:
    """Nats that another prompt costs, on average over the others."""
    return math.fsum(nlls[1:]) / len(nlls[1:]) - nlls[0]
