"""Checks of scenes: who speaks, how they take turns, and what a scene is made of."""

import re
from dataclasses import dataclass
from itertools import pairwise

from storyforge.principles import asked
from storyforge.principles.corpus import Corpus
from storyforge.principles.findings import Finding, Span, complete, finding

MOST_NAME_WORDS = 6
# NAME alone on its line, or NAME: and the speech; a direction in brackets and marks of markdown may follow.
HEADING = re.compile(
    r"[ \t*_#>]{0,8}(?P<name>[^\W\d_][^\n:*_\[(]{0,60})(?:[\[(][^\n\])]{0,60}[\])])?[ \t*_]{0,8}"
    r"(?P<colon>:)?[ \t*_]{0,8}(?P<beside>(?(colon)[^\n]?|(?=\n|\Z)))"
)
NO_NAME = re.compile(r"\b(?:act|scene|speakers|characters|place|setting|the end)\b|[!?,;…]", re.IGNORECASE)
SMALL = frozenset(["of", "the", "and"])  # inside a name
DIRECTION = re.compile(r"[ \t*_]{0,8}[\[(]|[ \t]{0,8}[*_]{1,3}[^*_\n]{1,300}[*_]{1,3}[ \t]{0,8}(?=\n|\Z)")
LINE = re.compile(r"^.*\S.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Speech:
    speaker: str  # casefolded: the name asked for, where the heading names one, else what the heading says
    asked: bool
    span: Span  # of the heading


def speeches(prompt: str, text: str) -> list[Speech]:
    """The headings that have a line of speech beside or below them, in order."""
    wanted = asked.speakers(prompt)
    found: list[Speech] = []
    below = False  # whether a line follows
    for line in reversed(list(LINE.finditer(text))):
        heading = _heading(text, line.start(), wanted)
        if heading and (below or heading["beside"]):
            said = _folded(heading["name"])
            known = _asked_for(said, wanted)
            found.append(Speech(known or said, known is not None, heading.span("name")))
        below = True
    return found[::-1]


def _heading(text: str, start: int, wanted: tuple[str, ...]) -> re.Match[str] | None:
    """Of the line that begins at `start`; a name in small letters is one that was asked for."""
    heading = HEADING.match(text, start)
    if heading is None or _folded(heading["name"]) in wanted:
        return heading
    name = heading["name"].strip(" .\t\r")
    parts = [word for word in name.split() if word not in SMALL]
    capitals = name.isupper() and len(name) > 1
    titled = heading["colon"] and all(word[0].isupper() for word in parts)
    fits = (capitals or titled) and len(parts) <= MOST_NAME_WORDS and not NO_NAME.search(name)
    return heading if fits else None


def _folded(name: str) -> str:
    return " ".join(name.casefold().strip(" .\t\r").split())


def _asked_for(name: str, wanted: tuple[str, ...]) -> str | None:
    """The name asked for, or the only one with these words in it: "Alaric" is DUKE ALARIC."""
    found = [each for each in wanted if set(name.split()) <= set(each.split())]
    return name if name in wanted else found[0] if len(found) == 1 else None


def speakers(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the people asked for who speak."""
    wanted = asked.speakers(prompt)
    speaking = {speech.speaker for speech in speeches(prompt, text)}
    return finding(len(speaking.intersection(wanted)), len(wanted))


def headings(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Of the names above speeches, the share that were asked for.

    The first is left out, as most writers get it right: a text with more speeches would look better.
    """
    if not asked.speakers(prompt):
        return None
    later = speeches(prompt, text)[1:]
    strangers = [speech.span for speech in later if not speech.asked]
    return finding(len(later) - len(strangers), len(later), strangers)


def turns(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Whether two of those asked for speak one after the other; where two or more were asked for."""
    if len(asked.speakers(prompt)) < 2:
        return None
    speaking = [speech.speaker for speech in speeches(prompt, text) if speech.asked]
    return finding(float(any(one != other for one, other in pairwise(speaking))), 1)


def form(prompt: str, text: str, ended: bool, corpus: Corpus) -> Finding | None:
    """Share of the paragraphs that begin as those of a scene do: with a name, or a direction in brackets."""
    if not asked.drama(prompt):
        return None
    wanted, text = asked.speakers(prompt), complete(text, ended)
    lines = list(LINE.finditer(text))
    befores = [-2, *(line.end() for line in lines)]  # so that the first line stands after a gap
    first = [line for end, line in zip(befores, lines, strict=False) if line.start() - end > 1]
    told = [
        line.span()
        for line in first
        if not DIRECTION.match(text, line.start()) and not _heading(text, line.start(), wanted)
    ]
    return finding(len(first) - len(told), len(first), told)
