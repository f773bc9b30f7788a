"""Scenes → passages of a bounded length, cut where a reader would pause.

A scene comes in the plays' markdown, and its passages have none left:

THESEUS
Stir up the Athenian youth to merriments;
[Exit PHILOSTRATE]
Hippolyta, I woo'd thee with my sword,
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from storyforge.preprocess.language import word_count

EMPHASIS = re.compile(r"^([_*]+)((?:(?!\n\s*\n)[^_*])+)[_*]+[ \t]*$", re.MULTILINE)
HALF_NAME = re.compile(r"[A-Z]{3,}(?: [A-Z]+)*|[A-Z][a-z]+'s")  # "BISHOP" above "**OF WINCHESTER**"
UNOPENED = re.compile(r"\[([^\[\]]+)\]_?")
ENDS_OF_A_PLAY = ("PROLOGUE", "EPILOGUE")
EXIT = re.compile(r"\[(?:Exit|Exeunt|Dies)\b")


@dataclass(frozen=True, slots=True)
class Speech:
    """What one speaker says, directions in square brackets; without a speaker, a direction of its own."""

    speaker: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((self.speaker, *self.lines) if self.speaker else self.lines)

    @property
    def spoken(self) -> str:
        return "\n".join(line for line in self.lines if not line.startswith("["))


def speeches(markdown: str, scene: str = "") -> list[Speech]:
    """The scene's speeches, and the directions between them, in order; no markdown left."""
    found: list[Speech] = []
    held: list[str] = []  # directions: part of the speech if it goes on after them
    for kind, text in _repaired_names(list(_marked(markdown))):
        if kind == "direction":
            held.append(text)
            continue
        inside = kind == "line" and found and found[-1].speaker
        if inside:
            found[-1] = Speech(found[-1].speaker, (*found[-1].lines, *held, text))
        else:
            found += [Speech("", (direction,)) for direction in held]
            found.append(Speech(text, ()) if kind == "name" else _unassigned(text, held, scene, not found))
        held = []
    found += [Speech("", (direction,)) for direction in held]
    return [speech for speech in found if speech.lines]


def _unassigned(line: str, directions: Sequence[str], scene: str, first: bool) -> Speech:
    """Words before anyone is named: a prologue's, of the one who entered, or the rest of the heading."""
    if scene.upper() in ENDS_OF_A_PLAY:
        return Speech(scene.upper(), (line,))
    entered = re.findall(r"[A-Z]{3,}", directions[-1]) if directions else []
    if len(entered) == 1:
        return Speech(entered[0], (line,))
    return Speech("", (f"[{line}]" if first else line,))


def _marked(markdown: str) -> Iterator[tuple[str, str]]:
    """Each line as name, direction or line, by the markdown around it."""
    text = re.sub(r"_*\[\s*\]_*", "", markdown.replace("\\", ""))
    for line in EMPHASIS.sub(_plain, text).splitlines():
        line = line.strip()
        if line.startswith("**"):
            yield "name", tidy(line.strip("* ").replace(":", "")).replace(" & ", " and ").upper()
        elif line and (line[0] in "_*" or UNOPENED.fullmatch(line)):
            yield "direction", f"[{tidy(re.sub(r'[_*]', '', line).strip('[] '))}]"
        elif line.strip("#_* "):
            yield "line", tidy(re.sub(r"[_*]", "", line))


def _plain(match: re.Match[str]) -> str:
    """Emphasised words on one line, as a name or a direction."""
    words = " ".join(match[2].split())
    return f"**{words}**" if match[1] == "**" else f"[{words.strip('[] ')}]"


def tidy(line: str) -> str:
    """Spaces as a printer would set them: `CLARENCE 's` and `& c.` closed up, none before a stop."""
    line = " ".join(line.split())
    return re.sub(r" (?=[,.;:?!](?!\.)|'s\b)|(?<=&) (?=[cC]\b)", "", line)


def _repaired_names(marked: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Names whose first half lost its emphasis made whole; a play's epilogue given its name."""
    half = ""
    for (kind, text), (following, _) in zip(marked, [*marked[1:], ("end", "")], strict=False):
        if kind == "name":
            yield kind, f"{half.upper()} {text}".strip()
            half = ""
        elif kind == "line" and text in ENDS_OF_A_PLAY:
            yield "name", text
        elif kind == "line" and following in ("name", "end") and HALF_NAME.fullmatch(text):
            half = text
        else:
            yield kind, text


@dataclass(frozen=True, slots=True)
class Passage:
    """A stretch of a longer text, which it may open, end, or both."""

    text: str
    opens: bool
    ends: bool
    speakers: tuple[str, ...] = ()  # in the order in which they first speak
    body: str | None = None  # of a scene: what is spoken, without names and directions


def scene_passages(speeches: Sequence[Speech], max_words: int) -> list[Passage]:
    """The fewest passages of at most `max_words`, and among those the most even.

    Cut between speeches; inside a longer one between lines, its speaker named again. Directions stay with
    their speech, and may carry a passage a few words over.
    """
    parts = [part for speech in speeches for part in _split_speech(speech, max_words)]
    units = _with_directions(parts)
    cuts = even_cuts([sum(word_count(str(part)) for part in unit) for unit in units], max_words)
    found = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        inside = [part for unit in units[start:end] for part in unit]
        speakers = tuple(dict.fromkeys(part.speaker for part in inside if part.speaker))
        text, body = "\n\n".join(map(str, inside)), "\n".join(part.spoken for part in inside)
        found.append(Passage(text, start == 0, end == len(units), speakers, body))
    return found


def _split_speech(speech: Speech, max_words: int) -> Iterator[Speech]:
    """The speech, or where it is longer than `max_words` even parts of it under the same name."""
    cuts = even_cuts(list(map(word_count, speech.lines)), max(1, max_words - word_count(speech.speaker)))
    for start, end in zip(cuts, cuts[1:], strict=False):
        yield Speech(speech.speaker, speech.lines[start:end])


def _with_directions(parts: Sequence[Speech]) -> list[list[Speech]]:
    """Speeches with the directions no cut may part from them: an exit ends, an entrance begins."""
    units: list[list[Speech]] = []
    waiting = False  # the last unit is directions, and their speech is still to come
    for part in parts:
        leaves = not part.speaker and EXIT.match(part.lines[0])
        if units and (waiting or leaves):
            units[-1].append(part)
        else:
            units.append([part])
        waiting = not part.speaker and not leaves
    if len(units) > 1 and waiting:
        last = units.pop()
        units[-1] += last
    return units


def even_cuts(sizes: Sequence[float], limit: float) -> list[int]:
    """Borders of the fewest runs that sum to at most `limit`, with the least sum of squares among those.

    A single size above the limit is a run of its own.
    """
    best = [(0, 0, 0)]  # for the first n sizes: runs, sum of squares, where the last run starts
    for end in range(1, len(sizes) + 1):
        choices, total = [], 0
        for start in range(end - 1, -1, -1):
            total += sizes[start]
            if total > limit and start < end - 1:
                break
            choices.append((best[start][0] + 1, best[start][1] + total * total, start))
        best.append(min(choices))
    cuts = [len(sizes)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][2])
    return cuts[::-1]
