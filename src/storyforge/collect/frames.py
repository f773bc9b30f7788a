"""What stands around a story in its file – front matter, a library's frame, headings – is told from it.

Titles, authors, dates and tags are kept beside the story; the rest is taken off and counted.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storyforge.collect.layout import BYLINE, MAX_TITLE, joined, without_headings
from storyforge.collect.matter import without_address, without_author_page, without_contents

MAX_FRONT_MATTER = 20_000  # characters
MAX_VALUES = 100  # tags or authors
MAX_HEAD = 20_000  # characters of a library's header
MAX_LABEL, MAX_ABOVE = 200, 8  # characters of a line, and lines above the labels; more is the story's prose
NAMES = {"title": "title", "author": "author", "authors": "author", "creator": "author", "date": "date"}
NAMES |= {"tags": "tags", "keywords": "tags"}
# A block with none of these keys may be the story's: two speeches between scene breaks.
FRONT_KEYS = NAMES.keys() | set(
    "layout draft slug permalink categories category description summary lang language status aliases"
    " created modified updated published publish synopsis subtitle series genre wordcount".split()
)
KEYED = re.compile(r"([^\W\d][\w -]{0,40}?)[ \t]*:(?:[ \t]+(.*))?$")
FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
GUTENBERG_START = re.compile(
    r"^.{0,3}\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG EBOOK[^\n]*(?:\n[^\n]+)?\*{3} *$", re.MULTILINE
)
GUTENBERG_END = re.compile(r"^.{0,3}\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG EBOOK", re.MULTILINE)
GUTENBERG_LAST = re.compile(r"\n(?:End of (?:the )?Project Gutenberg[^\n]*|THE END\.?)\s*\Z", re.IGNORECASE)
GUTENBERG_CREDIT = re.compile(
    r"\A\s*(?:Produced by|E-text prepared by|Transcribed (?:from|by)|\[?Transcriber['’]s Note)"
    r"[^\n]*(?:\n[^\n]+)*\n\n",
    re.IGNORECASE,
)
LABELLED = re.compile(
    r"^\W{0,4}(Title|Author|Release date|Translator)\W{0,4}: *(.+?) *$", re.MULTILINE | re.IGNORECASE
)
# The lines that Archive of Our Own, FanFiction.Net and their downloaders write above a story.
LABEL = re.compile(
    r"^\W{0,4}(rating|archive warnings?|categor(?:y|ies)|fandoms?|relationships?|characters?|additional tags"
    r"|language|series|collections?|stats|published|updated|completed|packaged|words?|chapters?|status|genre|publisher"
    r"|(?:story|author) url|summary|disclaimer|pairing)\W{0,4}[:：]",
    re.IGNORECASE,
)
TITLE_PAGE = re.compile(  # of a screenplay
    r"\s*((?:(?:Title|Credit|Authors?|Source|Draft date|Date|Contact|Copyright|Notes?) *:.*\n"
    r"(?:[ \t]+\S.*\n)*)+)\n",
    re.IGNORECASE,
)
ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")  # CommonMark 0.31, section 2.4
LONG = ("summary", "disclaimer", "stats")  # go on over several lines
MIN_LABELS, LABEL_LINES = 3, 60  # so many different ones in the first lines are a frame
ARCHIVE_END = re.compile(
    r"^(?:\W{0,4}(?:End Notes|Afterword)\W{0,4}\n(?:.*\n){0,40}?)?"
    r".*drop by the archive and comment.*(?s:.*)\Z"
    r"|^End file\.\s*\Z",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass
class Framed:
    """A text, what was said of it, and how many of each kind were taken off."""

    text: str
    about: dict[str, Any] = field(default_factory=dict)
    taken: Counter[str] = field(default_factory=Counter)


def unframed(text: str, suffix: str, stem: str = "") -> Framed:
    """A text file's story; a screenplay keeps its headings and lines. `stem`: of its file's name."""
    framed = Framed(text.replace("\r\n", "\n").replace("\r", "\n"))
    _front_matter(framed)
    if suffix == ".fountain":
        _fountain(framed)
    else:
        _gutenberg(framed)
        _labels(framed)
        framed.text, addresses = without_address(framed.text)
        framed.text, tables = without_contents(framed.text)
        framed.text, pages = without_author_page(framed.text)
        framed.taken.update(addresses=addresses, contents=tables, author_pages=pages)
        markdown = suffix not in (".txt", ".text")  # pandoc makes Markdown of every document
        framed.text, title, author, headings = without_headings(framed.text, markdown, stem)
        framed.about = {"title": title, "author": author} | framed.about
        framed.text, breaks = joined(framed.text)
        framed.taken.update(titles=int(title is not None), chapter_headings=headings, joined_lines=breaks)
        framed.about = {key: value for key, value in framed.about.items() if value}
    if suffix in (".md", ".markdown"):  # Google Docs' Markdown has a backslash before every mark: "No\\!"
        framed.text, framed.taken["escapes"] = ESCAPE.subn(r"\1", framed.text)
        framed.about |= {
            key: ESCAPE.sub(r"\1", framed.about[key]) for key in {"title", "author"} & framed.about.keys()
        }
    framed.text = framed.text.strip("\n")
    return framed


def known(value: Any) -> str | list[str] | None:
    """A value of front matter or a document's properties as text, or as a list of texts; None of any other.

    Lists in lists are not looked into: YAML's references can make a hundred bytes into a billion texts.
    """
    if isinstance(value, list):
        return [text for item in value[:MAX_VALUES] if isinstance(text := _scalar(item), str)] or None
    return _scalar(value)


def _scalar(value: Any) -> str | None:
    if isinstance(value, dict):
        value = value.get("text")  # as e-books have names: {text: …, role: …}
    if not isinstance(value, str | int | float | date) or isinstance(value, bool):
        return None
    text = str(value).strip()
    return None if any("\ud800" <= letter <= "\udfff" for letter in text) else text or None


def properties(values: dict[str, Any]) -> dict[str, Any]:
    """Title, author, date and tags of front matter or a document's properties, and nothing else."""
    lowered = {str(key).casefold(): known(value) for key, value in values.items()}
    found = {NAMES[key]: value for key, value in lowered.items() if key in NAMES and value}
    return {
        key: ", ".join(value) if isinstance(value, list) and key != "tags" else value
        for key, value in found.items()
    }


def _front_matter(framed: Framed) -> None:
    found = FRONT_MATTER.match(framed.text[:MAX_FRONT_MATTER].lstrip("\n"))
    try:
        values = YAML(typ="safe").load(found[1]) if found else None
    except (YAMLError, ValueError, RecursionError):
        values = _line_by_line(found[1])
    if isinstance(values, dict) and FRONT_KEYS & {str(key).casefold() for key in values}:
        framed.about |= properties(values)
        framed.text = framed.text.lstrip("\n")[found.end() :]
        framed.taken["front_matter"] += 1


def _line_by_line(block: str) -> dict[str, Any] | None:
    """What is no YAML, such as `title: The Lamp: A Story`; None where a line is prose."""
    values, key = {}, ""
    for line in filter(str.strip, block.split("\n")):
        item = re.match(r"\s*-[ \t]+(.*)", line)
        if found := KEYED.match(line):
            key, value = found[1], (found[2] or "").strip()
            inner = re.fullmatch(r"\[(.*)\]", value)
            values[key] = _unquoted(inner[1].split(",")) if inner else _unquoted([value])[0]
        elif item and key:
            before = values[key] if isinstance(values[key], list) else []
            values[key] = before + _unquoted([item[1]])
        elif not line[0].isspace() and line[0] != "#":
            return None
    return values


def _unquoted(values: list[str]) -> list[str]:
    return [re.sub(r"""^(["'])(.*)\1$""", r"\2", value.strip()) for value in values]


def _gutenberg(framed: Framed) -> None:
    """Without the header that begins it a mark of the end may be the story's; of several the last counts."""
    start = GUTENBERG_START.search(framed.text, 0, MAX_HEAD)
    if start:
        for key, value in LABELLED.findall(framed.text[: start.start()]):
            if key.lower() in ("title", "author"):
                framed.about.setdefault(key.lower(), value)
        framed.text = framed.text[start.end() :]
        for end in [*GUTENBERG_END.finditer(framed.text)][-1:]:
            framed.text = framed.text[: end.start()]
        framed.taken["frames"] += 1
        framed.text = GUTENBERG_CREDIT.sub("", framed.text + "\n\n")
        framed.text = GUTENBERG_LAST.sub("", framed.text.rstrip())


def _labels(framed: Framed) -> None:
    """The block of `Rating: …` and `Words: …` above a story, with the title and author above it."""
    lines = framed.text.split("\n")
    places = {}
    for n, line in enumerate(lines[:LABEL_LINES]):
        if found := LABEL.match(line):
            places[n] = found[1].casefold()
        elif len(line) > MAX_LABEL and re.search(r"[.!?…][”\"’']?(?:\s|$)", line):
            if places.get(n - 1) not in LONG and not re.search(r"[:：][\s*]*$", lines[n - 1]):
                break  # the story has begun
    first, last = min(places, default=0), max(places, default=0)
    above = [line.strip() for line in lines[:first] if line.strip()]
    if len(set(places.values())) >= MIN_LABELS and len(above) <= MAX_ABOVE:
        for line in above:
            if author := BYLINE.match(line):
                framed.about.setdefault("author", author[1])
            elif len(line) <= MAX_TITLE and "://" not in line and "Archive of Our Own" not in line:
                framed.about.setdefault("title", line.strip("#*_ "))
        long = places[last] in LONG
        while last + 1 < len(lines) and lines[last + 1].strip() and (long or lines[last + 1][0].isspace()):
            last += 1
        framed.text = "\n".join(lines[last + 1 :])
        framed.taken["frames"] += 1
    if framed.taken["frames"]:
        framed.text = ARCHIVE_END.sub("", framed.text)


def _fountain(framed: Framed) -> None:
    """A screenplay's title page goes beside it; notes, sections and synopses, which nobody prints, go."""
    page = TITLE_PAGE.match(framed.text)
    if page:
        entries = re.findall(r"^(\w[\w ]*?) *:[ \t]*((?:.*\n)(?:[ \t]+\S.*\n)*)", page[1], re.MULTILINE)
        framed.about |= properties(
            {key: re.sub(r"[_*]", "", " ".join(value.split())) for key, value in entries}
        )
        framed.text = framed.text[page.end() :]
        framed.taken["titles"] += 1
    framed.text, cuts = _without(framed.text, "/*", "*/")
    framed.text, notes = _without(framed.text, "[[", "]]")
    framed.text, outline = re.subn(r"^(?:#{1,6}|=(?!==))[^\n]*$", "", framed.text, flags=re.MULTILINE)
    framed.taken["notes"] += cuts + notes + outline
    framed.text = re.sub(r"\n{3,}", "\n\n", framed.text)


def _without(text: str, start: str, end: str) -> tuple[str, int]:
    """What stands between the marks goes; how often. One that nothing ends stays."""
    kept, at, cuts = [], 0, 0
    while (begin := text.find(start, at)) >= 0 and (stop := text.find(end, begin + len(start))) >= 0:
        kept.append(text[at:begin])
        at, cuts = stop + len(end), cuts + 1
    return "".join(kept) + text[at:], cuts
