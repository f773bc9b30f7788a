"""Whether a text answers its prompt, and whether a writer tells that prompt from others."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.evaluate.losses import WRITERS, difference, rounded
from storyforge.model.encoding import Encoded, Encoder

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


def distractors(exchange: Exchange, others: Sequence[Exchange], count: int, seed: int) -> list[str]:
    """Up to `count` other prompts, of the same source and another group as far as there are any.

    Of the same source, so that the form of a prompt does not give it away; of another group, since a prompt
    of the same play may fit the story too.
    """

    def distance(other: Exchange) -> tuple[bool, bool, int]:
        return (
            other.source != exchange.source,
            other.group == exchange.group,
            rank(f"{exchange.id}\0{other.id}", seed),
        )

    prompts = dict.fromkeys(other.prompt for other in sorted(others, key=distance))
    prompts.pop(exchange.prompt, None)
    return list(prompts)[:count]


def under_prompts(
    encoder: Encoder, row: Encoded, prompts: Sequence[str], most_reply_tokens: int
) -> list[Encoded]:
    """The beginning of a story's reply after each prompt, the same tokens every time; ids `ID 0`, `ID 1` …

    A single prompt gives none: there is nothing to choose from.
    """
    reply = row.ids[row.reply_start :][:most_reply_tokens]
    asked = [encoder.prompt(prompt) for prompt in prompts] if len(prompts) > 1 else []
    return [
        replace(row, id=f"{row.id} {number}", ids=(*ids, *reply), reply_start=len(ids))
        for number, ids in enumerate(asked)
    ]


@dataclass(frozen=True, slots=True)
class Choice:
    """NLLs in nats of one story's same tokens under several prompts, its own first, for both writers."""

    id: str
    group: str
    tokens: int
    base: tuple[float, ...]
    tuned: tuple[float, ...]


def choices(rows: Iterable[Encoded], base: Mapping[str, float], tuned: Mapping[str, float]) -> list[Choice]:
    """The NLLs of `under_prompts`' rows, gathered by story."""
    stories: dict[str, list[Encoded]] = defaultdict(list)
    for row in rows:
        stories[row.id.rpartition(" ")[0]].append(row)
    return [
        Choice(
            name,
            same[0].group,
            same[0].reply_tokens,
            tuple(base[row.id] for row in same),
            tuple(tuned[row.id] for row in same),
        )
        for name, same in stories.items()
    ]


def prompt_use(choices: Sequence[Choice]) -> dict[str, Any] | None:
    """How often the own prompt makes a story likeliest (See et al. 2019), and what another one costs."""
    if not choices:
        return None
    # A difference of differences: how much more another prompt costs the tuned writer than it costs the base.
    gains = [(choice.group, _cost(choice.tuned) - _cost(choice.base), choice.tokens) for choice in choices]
    chance = math.fsum(1 / len(choice.base) for choice in choices) / len(choices)
    return {
        "stories": len(choices),
        "chance": rounded(chance),
        **{writer: _of_writer(choices, writer) for writer in WRITERS},
        "shuffled_cost_gain": difference(gains),
    }


def _of_writer(choices: Sequence[Choice], writer: str) -> dict[str, float]:
    nlls = [getattr(choice, writer) for choice in choices]
    tokens = sum(choice.tokens for choice in choices)
    own = math.fsum(nll[0] for nll in nlls) / tokens
    cost = math.fsum(map(_cost, nlls)) / tokens
    first = sum(nll[0] < min(nll[1:]) for nll in nlls) / len(nlls)  # a tie is not first
    numbers = {"own_prompt_first": first, "loss": own, "shuffled_loss": own + cost}
    return {name: rounded(value) for name, value in numbers.items()}


def _cost(nlls: tuple[float, ...]) -> float:
    """Nats that another prompt costs, on average over the others."""
    return math.fsum(nlls[1:]) / len(nlls[1:]) - nlls[0]
