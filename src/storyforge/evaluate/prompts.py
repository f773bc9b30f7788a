"""The prompts that a recipe is judged and shown on: some of data/prompts.yaml, some of stories held out."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from pydantic import NonNegativeInt

from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.params import Params, Slice
from storyforge.core.records import Exchange, Prompt

HELD_OUT = "held out"


class PromptsParams(Slice):
    kinds: tuple[str, ...]  # of data/prompts.yaml; none listed: all
    held_out: NonNegativeInt  # prompts of so many test stories


class AskedParams(Params, extra="ignore"):
    """What commands need of the section, without the torch that the stage's own class loads."""

    section: ClassVar[str] = "evaluate"
    seed: NonNegativeInt
    prompts: PromptsParams


def fitting_prompts(
    standard: Sequence[Prompt], tests: Iterable[Exchange], params: PromptsParams, seed: int
) -> list[Prompt]:
    """Those of the corpus first; UserError names a kind that no standard prompt has."""
    known = dict.fromkeys(prompt.kind for prompt in standard)
    if unknown := [kind for kind in params.kinds if kind not in known]:
        raise UserError(
            f"params.yaml: evaluate.prompts.kinds: data/prompts.yaml has no prompt of kind {unknown[0]!r}; "
            f"there are: {', '.join(known)}"
        )
    wanted = params.kinds or known
    return [*held_out(tests, params.held_out, seed), *(each for each in standard if each.kind in wanted)]


def held_out(tests: Iterable[Exchange], count: int, seed: int) -> list[Prompt]:
    """`count` different prompts of test stories by hash, of as many groups as possible."""
    rows = sorted(tests, key=lambda story: rank(story.id, seed))
    first = {story.group: story for story in reversed(rows)}
    rows.sort(key=lambda story: first[story.group] is not story)
    found: dict[str, Prompt] = {}
    for story in rows:
        found.setdefault(story.prompt, Prompt(story.id, HELD_OUT, story.prompt))
    return list(found.values())[:count]
