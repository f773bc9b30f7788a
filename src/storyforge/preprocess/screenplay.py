"""Screenplays in Fountain (fountain.io/syntax) → passages as they are printed, without its forcing marks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from storyforge.preprocess.language import Measure, word_count
from storyforge.preprocess.passages import Passage, even_cuts
from storyforge.preprocess.prose import prose_passages

BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
HEADING = re.compile(r"(?:INT|EXT|EST|INT\.?/EXT|I/E)[. ]", re.IGNORECASE)
FORCED_HEADING = re.compile(r"\.(?=[^\W\d_])")
SCENE_NUMBER = re.compile(r"\s*#[\w.-]+#$")
EXTENSION = re.compile(r"\s*\([^()]*\)$")  # (V.O.), (CONT'D)
DUAL = re.compile(r"\s*\^$")  # speaks at the same time as the one before
PAGE_BREAK = re.compile(r"={3,}")
CENTRED = re.compile(r">\s*(.*?)\s*<")
LONGEST_CUE = 40  # characters


@dataclass(frozen=True, slots=True)
class Part:
    """A scene heading, a paragraph of action, a transition, or a speech under its speaker's name."""

    text: str
    cue: str = ""
    heading: bool = False

    def __str__(self) -> str:
        return f"{self.cue}\n{self.text}" if self.cue else self.text


def screen_passages(fountain: str, limit: float, length: Measure = word_count) -> list[Passage]:
    """The fewest passages of at most `limit`, and among those the most even; none of a text without words.

    Cut between paragraphs and speeches; inside a longer one as prose is cut, its speaker named again. A
    heading stays with what follows it, and may carry a passage a few words over.
    """
    units: list[list[Part]] = []
    for part in (piece for whole in parts(fountain) for piece in _split(whole, limit, length)):
        if units and units[-1][-1].heading:
            units[-1].append(part)
        else:
            units.append([part])
    cuts = even_cuts([sum(length(str(part)) for part in unit) for unit in units], limit)
    found = []
    for start, end in pairwise(cuts):
        inside = [part for unit in units[start:end] for part in unit]
        speakers = tuple(dict.fromkeys(EXTENSION.sub("", part.cue) for part in inside if part.cue))
        text, body = "\n\n".join(map(str, inside)), "\n".join(part.text for part in inside)
        found.append(Passage(text, start == 0, end == len(units), speakers, body))
    return found


def parts(fountain: str) -> Iterator[Part]:
    """All that is printed, in order: of the marks that say what a line is, none is left."""
    for paragraph in filter(str.strip, BLANK_LINES.split(fountain)):
        first, _, rest = paragraph.partition("\n")
        line = first.strip()
        if PAGE_BREAK.fullmatch(line):
            line = first = ""
        if HEADING.match(line) or FORCED_HEADING.match(line):
            yield Part(SCENE_NUMBER.sub("", FORCED_HEADING.sub("", line, count=1)), heading=True)
            first = ""
        elif rest.strip() and _is_cue(line):
            yield Part(_said(rest), DUAL.sub("", line.removeprefix("@").lstrip()))
            continue
        if text := "\n".join(map(_printed, filter(str.strip, (first, *rest.split("\n"))))):
            yield Part(text)


def _is_cue(line: str) -> bool:
    """Whether a line that others follow names who speaks them: "ANN (V.O.)", "@McAvoy"; not "BANG!"."""
    name = EXTENSION.sub("", DUAL.sub("", line))
    shaped = len(name) <= LONGEST_CUE and name.isupper() and name[-1] not in ".!?:,;" and name[0] not in "!>"
    return line.startswith("@") or shaped


def _said(lines: str) -> str:
    """A speech: `~` marks what is sung."""
    return "\n".join(line.strip().removeprefix("~").lstrip() for line in lines.split("\n"))


def _printed(line: str) -> str:
    """A line of action; `!` forces one, `>` a transition, `> <` a centred line, `@` a name."""
    bare = line.strip()
    if centred := CENTRED.fullmatch(bare):
        return centred[1]
    if bare[0] in "!@~" and len(bare) > 1:
        return bare[1:].rstrip() if bare[0] == "!" else bare[1:].strip()
    return bare[1:].lstrip() or bare if bare[0] == ">" else line.rstrip()


def _split(part: Part, limit: float, length: Measure) -> Iterator[Part]:
    room = max(1, limit - length(part.cue))
    if length(part.text) <= room:
        yield part
    else:
        yield from (Part(piece.text, part.cue) for piece in prose_passages(part.text, room, length))
