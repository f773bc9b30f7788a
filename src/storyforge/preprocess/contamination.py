"""Stories that would give away a prompt held out for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

from storyforge.core.words import WORD
from storyforge.preprocess.duplicates import jaccard, shingles

RUN = 12  # words in common that are no accident (datatrove decont/n_grams.py)
PROMPT_SHINGLE = 3


@dataclass(frozen=True, slots=True)
class HeldOutPrompts:
    """What the held-out prompts say, ready to be compared with many stories."""

    runs: frozenset[str]
    screen: frozenset[str]  # their shingles, of the length that stories have at hand
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
