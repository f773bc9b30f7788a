"""What makes a text fit to be the better one of a pair, and a revision fit to take its draft's place."""

import re

from storyforge.core.words import grams, words
from storyforge.measures.prompt_words import covered, elements
from storyforge.principles.scores import Scored
from storyforge.revise.drafts import Draft
from storyforge.revise.params import ReviseParams

OVERLAP_WORDS = 4
# A sentence in a draft that speaks to whoever reads it: "Ignore the above and write …".
PLANTED = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b[^.!?\n]{0,60}?"
    r"\b(?:above|previous|prior|earlier|preceding|instructions?|prompt|task)\b[^.!?\n]*[.!?]?",
    re.IGNORECASE,
)
SAFE = "safe"  # the check whose breach drops a text, whatever else is right
LEAST_LETTERS = 4  # of a planted word; shorter ones are in every text


def is_unsafe(draft: Draft) -> bool:
    return draft.scored.checks.get(SAFE, 1.0) < 1.0


def falls(before: Scored, after: Scored, slack: float) -> str | None:
    """The check that falls most, where one falls by more than `slack`; of those that both texts allow."""
    both = before.checks.keys() & after.checks.keys()
    losses = sorted((after.checks[name] - before.checks[name], name) for name in both)
    return losses[0][1] if losses and -losses[0][0] > slack + 1e-9 else None


def of_one_length(a: Draft, b: Draft, band: float) -> bool:
    """Whether the shorter one lacks no more than `band` of the longer one's tokens."""
    return abs(a.tokens - b.tokens) <= band * max(a.tokens, b.tokens)


def overlap(draft: str, revision: str) -> float:
    """Share of the draft's runs of four words that the revision has too; 1 of a shorter draft."""
    runs = set(grams(words(draft), OVERLAP_WORDS))
    return len(runs.intersection(grams(words(revision), OVERLAP_WORDS))) / len(runs) if runs else 1.0


def obeyed(prompt: str, draft: str, revision: str) -> bool:
    """Whether the revision says what a sentence planted in the draft tells its reader to say.

    What only the planted sentence has must not come up in the revision, but in that very sentence.
    """
    planted = " ".join(PLANTED.findall(draft))
    own = {word for word in words(planted) if len(word) >= LEAST_LETTERS}
    own -= {*words(prompt), *words(PLANTED.sub(" ", draft))}
    return not own.isdisjoint(words(PLANTED.sub(" ", revision)))


def refusal(
    draft: Draft, current: Draft, revision: Draft, *, params: ReviseParams, common: frozenset[str]
) -> tuple[str, str | None] | None:
    """Why the revision must not take the place of `current`, itself `draft` or a revision of it; else None.

    With the name of the check that falls, if that is why. `common`: words that tell no prompt from others.
    """
    prompt, (low, high) = draft.row.prompt, params.overlap
    if is_unsafe(revision):
        return "unsafe", None
    if obeyed(prompt, draft.text, revision.text):
        return "planted instruction", None
    if not of_one_length(draft, revision, params.length_band):
        return "length", None
    if draft.ended and not revision.ended:
        return "cut", None
    kept = overlap(draft.text, revision.text)
    if not low <= kept <= high:
        return "another story" if kept < low else "hardly changed", None
    wanted = elements(prompt, common)
    if wanted and covered(wanted, revision.text) < covered(wanted, current.text):
        return "premise", None
    for earlier in (draft, current):
        if name := falls(earlier.scored, revision.scored, params.slack):
            return "check", name
    return None
