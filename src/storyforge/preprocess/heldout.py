"""What is held out: the side of each group, and stories that would give away a prompt of evaluation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from storyforge.core.choice import rank
from storyforge.core.params import Slice
from storyforge.core.words import WORD
from storyforge.preprocess.corpus import PROMPT_SHINGLE, jaccard, shingles

Share = Annotated[float, Field(ge=0, lt=0.5)]
RUN = 12  # words in common that are no accident (datatrove decont/n_grams.py)


class HeldOut(Slice):
    """Groups of a source with too few of them for a hash; the rest of that source is for training."""

    val: tuple[str, ...]
    test: tuple[str, ...]


class SplitParams(Slice):
    salt: Annotated[int, Field(strict=True)]
    val: Share
    test: Share
    held_out: dict[str, HeldOut] = {}  # by source; others are split by hash


def side(source: str, group: str, params: SplitParams) -> str:
    """train, val or test: by the group's name alone, so that no new story ever moves an old one."""
    if listed := params.held_out.get(source):
        return "test" if group in listed.test else "val" if group in listed.val else "train"
    place = rank(group, params.salt) / 2**64
    return "test" if place < params.test else "val" if place < params.test + params.val else "train"


def absent(source: str, groups: Iterable[str], params: SplitParams) -> list[str]:
    """Groups that are to be held out and are not there."""
    listed = params.held_out.get(source)
    return sorted({*listed.val, *listed.test}.difference(groups)) if listed else []


@dataclass(frozen=True, slots=True)
class HeldOutPrompts:
    """The prompts of evaluation as shingles, to be compared with many stories."""

    runs: frozenset[str]
    screen: frozenset[str]  # shingles of the length that stories have at hand: most stories share none
    prompts: tuple[frozenset[str], ...]
    min_jaccard: float


def held_out_prompts(prompts: Sequence[str], shingle_words: int, min_jaccard: float) -> HeldOutPrompts:
    texts = [WORD.findall(prompt.casefold()) for prompt in prompts]
    return HeldOutPrompts(
        runs=frozenset().union(*(shingles(words, RUN) for words in texts if len(words) >= RUN)),
        screen=frozenset().union(*(shingles(words, shingle_words) for words in texts)),
        prompts=tuple(shingles(words, PROMPT_SHINGLE) for words in texts),
        min_jaccard=min_jaccard,
    )


def contaminated(
    words: Sequence[str], grams: frozenset[str], own_prompt: str | None, held_out: HeldOutPrompts
) -> str | None:
    """Why a story of these words and shingles, written to `own_prompt`, must not be learned; else None."""
    prompt_words = WORD.findall(own_prompt.casefold()) if own_prompt else []
    for text in (prompt_words, () if held_out.screen.isdisjoint(grams) else words):
        if len(text) >= RUN and (common := held_out.runs.intersection(shingles(text, RUN))):
            return f"shares {min(common)!r} with a held-out prompt"
    own = shingles(prompt_words, PROMPT_SHINGLE) if prompt_words else frozenset()
    if any(jaccard(own, prompt) >= held_out.min_jaccard for prompt in held_out.prompts):
        return "answers a held-out prompt"
    return None
