"""The instruction a story answers, made of what is known about it and nothing else."""

import re
from collections.abc import Sequence

from storyforge.core.choice import rank
from storyforge.preprocess.passages import SENTENCE, Passage

KINDS = {
    "comedy": "comedy",
    "history": "history play",
    "problem play": "problem play",
    "roman play": "Roman play",
    "romance": "romance",
    "tragedy": "tragedy",
}
SCENE_WORDINGS = (
    "Write {part} in the manner of a Shakespearean {kind}.{place}{speakers}",
    "As Shakespeare would in a {kind}, write {part}.{place}{speakers}",
    "You are writing a {kind} in Shakespeare's style. Give {part}.{place}{speakers}",
    "Compose {part} for a {kind} in the language of Shakespeare.{place}{speakers}",
    "From a Shakespearean {kind}: {part}.{place}{speakers}",
)
STORY_WORDINGS = (
    "Write {register} that begins: {opening}",
    "Tell me {register}. Its first words are: {opening}",
    "Here is how {register} opens; write it. {opening}",
    "{opening} Go on from these words and make them {register}.",
)
LATER_WORDINGS = (
    "Write a passage from the middle of {register}. It begins: {opening}",
    "Go on in the middle of {register}, from these words: {opening}",
)
LONGEST_OPENING = 30  # words


def scene_prompt(key: str, genre: str, place: str, passage: Passage) -> str:
    """Genre, place, speakers, and where in its scene the passage stands; `key` picks the wording."""
    place = re.sub(
        r"^The same\.\s*", "", place, flags=re.IGNORECASE
    )  # the same as what, a reader cannot know
    return _pick(SCENE_WORDINGS, key).format(
        part=_part(passage),
        kind=KINDS.get(genre.casefold(), "play"),
        place=f" Place: {place.rstrip('.')}." if place else "",
        speakers=f" Speakers: {', '.join(passage.speakers)}." if passage.speakers else "",
    )


def opening_prompt(key: str, register: str, passage: Passage) -> str:
    """The passage's own first sentence, and what kind of text it comes from."""
    sentence = SENTENCE.match(passage.text)
    words = sentence[0].split() if sentence else []
    opening = " ".join(words) if len(words) <= LONGEST_OPENING else " ".join(words[:LONGEST_OPENING]) + " …"
    wordings = STORY_WORDINGS if passage.opens else LATER_WORDINGS
    return _pick(wordings, key).format(register=register, opening=opening)


def _part(passage: Passage) -> str:
    if passage.opens and passage.ends:
        return "a whole short scene"
    if passage.opens:
        return "the opening of a scene"
    return "the end of a scene" if passage.ends else "a passage from the middle of a scene"


def _pick(wordings: Sequence[str], key: str) -> str:
    return wordings[rank(key, seed=0) % len(wordings)]
