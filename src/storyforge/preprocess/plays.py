"""A scene in the plays' markdown → its speeches, no markdown left.

THESEUS
Stir up the Athenian youth to merriments;
[Exit PHILOSTRATE]
Hippolyta, I woo'd thee with my sword,
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

EMPHASIS = re.compile(r"^([_*]+)((?:(?!\n\s*\n)[^_*])+)[_*]+[ \t]*$", re.MULTILINE)
HALF_NAME = re.compile(r"[A-Z]{3,}(?: [A-Z]+)*|[A-Z][a-z]+'s")  # "BISHOP" above "**OF WINCHESTER**"
UNOPENED = re.compile(r"\[([^\[\]]+)\]_?")
ENDS_OF_A_PLAY = ("PROLOGUE", "EPILOGUE")


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
