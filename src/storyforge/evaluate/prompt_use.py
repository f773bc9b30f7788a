"""Whether a text answers its prompt, and whether a writer tells that prompt from others."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from storyforge.core.choice import rank
from storyforge.core.records import Exchange
from storyforge.evaluate.losses import WRITERS
from storyforge.measures.intervals import difference, rounded
from storyforge.model.encoding import Encoded, Encoder


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
