"""What a prompt asks for, read from its words alone."""

import re
from collections.abc import Callable

from storyforge.core.words import words
from storyforge.measures.prompt_words import words_ratio

# A stop ends the list, but not that of a title: "MR. HYDE"
SPEAKERS = re.compile(
    r"\b(?:speakers|characters)[^\S\n]*:[^\S\n]*((?:\b(?:mr|mrs|ms|dr|st)\.|[^.\n])+)", re.IGNORECASE
)
BETWEEN = re.compile(r"[,;]|\band\b")  # "MARCUS AND LUCIUS", who speak together, are one
PLAY = r"\b(?:comedy|tragedy|(?:a|the|stage|history|problem|roman) play|shakespear\w*)\b"
DRAMA = re.compile(
    r"\b(?:screenplay|dramatic form|(?:one|two|three|five)-act)\b"
    rf"|\bscene\b.{{0,60}}{PLAY}|{PLAY}.{{0,60}}\bscene\b",
    re.IGNORECASE | re.DOTALL,
)
END = re.compile(
    r"\b(?:whole|complete|entire|finished)(?: \w+){0,2} (?:scene|story|tale|piece|play)\b"
    r"|\b(?:end|ending) (?:of|for|to) (?:a|an|the|this|my) (?:\w+ )?(?:scene|act|play|story|tale|piece)\b"
    r"|\b(?:ends?|concludes?) (?:with|on|when)\b",
    re.IGNORECASE,
)
PERSON = re.compile(r"\b(first|second|third)[ -]person\b", re.IGNORECASE)
# A name inside a sentence, or any word in capitals; what begins a sentence may be no name.
NAME = re.compile(r"(?:(?<=[^\W_] )|(?<=[,;:] ))[A-Z][^\W\d_]{3,}|\b[A-Z][A-Z'’-]{3,}\b")


def speakers(prompt: str) -> tuple[str, ...]:
    """The names after "Speakers:", casefolded, in order; none where no speakers are asked for."""
    found = SPEAKERS.search(prompt)
    names = (" ".join(name.casefold().split()) for name in BETWEEN.split(found[1])) if found else ()
    return tuple(dict.fromkeys(filter(None, names)))


def drama(prompt: str) -> bool:
    return bool(speakers(prompt) or DRAMA.search(prompt))


def person(prompt: str) -> str | None:
    """Who is to tell the story: first, second or third person."""
    found = PERSON.search(prompt)
    return found[1].lower() if found else None


def end(prompt: str) -> bool:
    """Whether the text must come to its end: a whole scene, the end of one."""
    return END.search(prompt) is not None


def names(prompt: str) -> frozenset[str]:
    """The longer words of names, casefolded. Short ones are one letter from too many others."""
    found = (bare(word) for name in NAME.findall(prompt) for word in words(name))
    return frozenset(word for word in found if len(word) > 3)


def bare(word: str) -> str:
    """A name without the 's of what it owns."""
    return word.removesuffix("'s").removesuffix("’s")


CONDITIONS: dict[str, Callable[[str], bool]] = {
    "any": lambda prompt: True,
    "drama": drama,
    "prose": lambda prompt: not drama(prompt),
    "asks_length": lambda prompt: words_ratio(prompt, 1) is not None,
    "asks_viewpoint": lambda prompt: person(prompt) is not None,
    "asks_end": end,
    "names": lambda prompt: bool(names(prompt)),
}
