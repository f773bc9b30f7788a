"""What a writer is asked for a passage that has no prompt of its own: one of several wordings, by its id."""

import re
from collections.abc import Sequence

from storyforge.core.choice import rank
from storyforge.core.words import opening
from storyforge.preprocess.passages import Passage
from storyforge.preprocess.prose import sentences
from storyforge.preprocess.screenplay import HEADING

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
PARTS = {  # whether a passage opens and ends its scene
    (True, True): "a whole short scene",
    (True, False): "the opening of a scene",
    (False, True): "the end of a scene",
    (False, False): "a passage from the middle of a scene",
}
SCREEN_PARTS = {
    (True, True): "a short screenplay",
    (True, False): "the opening of a screenplay",
    (False, True): "the end of a screenplay",
    (False, False): "a passage from the middle of a screenplay",
}
SCREEN_WORDINGS = ("Write {part}.{place}{speakers}", "Give me {part}.{place}{speakers}")
LONGEST_OPENING = 30  # words
SHOWN = 3  # a prompt shows at most one of so many parts of a text: more would be copied, not written
READ_FOR_OPENING = 600  # characters: more than its words have


def scene_prompt(key: str, genre: str, place: str, passage: Passage) -> str:
    """Genre, place, speakers, and where in its scene the passage stands; `key` picks the wording."""
    # "The same." refers to the scene before, which a reader of the prompt does not see
    place = re.sub(r"^The same\.\s*", "", place, flags=re.IGNORECASE)
    return _pick(SCENE_WORDINGS, key).format(
        part=PARTS[passage.opens, passage.ends],
        kind=KINDS.get(genre.casefold(), "play"),
        place=f" Place: {place.rstrip('.')}." if place else "",
        speakers=f" Speakers: {', '.join(passage.speakers)}." if passage.speakers else "",
    )


def screen_prompt(key: str, passage: Passage) -> str:
    """Who speaks in this passage of a screenplay, and its heading, where it begins with one."""
    first = passage.text.partition("\n")[0]
    part = SCREEN_PARTS[passage.opens, passage.ends]
    place = f" It begins: {first}." if HEADING.match(first) else ""
    speakers = f" Speakers: {', '.join(passage.speakers)}." if passage.speakers else ""
    return _pick(SCREEN_WORDINGS, key).format(part=part, place=place, speakers=speakers)


def opening_prompt(key: str, register: str, passage: Passage) -> str:
    """The passage's own first sentence, and what kind of text it comes from."""
    wordings = STORY_WORDINGS if passage.opens else LATER_WORDINGS
    return _pick(wordings, key).format(register=register, opening=_opening(passage.text))


def _opening(text: str) -> str:
    """The first sentence, shortened where it has many words or is much of the text."""
    sentence = " ".join(sentences(text[:READ_FOR_OPENING].lstrip())[0].split())
    is_long = opening(sentence, LONGEST_OPENING + 1) is not None
    shown = opening(sentence, LONGEST_OPENING) if is_long else sentence
    if len(shown) > (most := len(text) // SHOWN):
        shown = shown[:most].rpartition(" ")[0] or shown[:most]
    return shown if shown == sentence else f"{shown} …"


def _pick(wordings: Sequence[str], key: str) -> str:
    return wordings[rank(key, seed=0) % len(wordings)]
