"""Which files are parts of one work, by their names and titles: what no split may cut."""

import re
import unicodedata

from storyforge.collect.numbers import COUNTED, ROMAN

PARTS = (
    "chapter|chap|ch|part|pt|book|scene|act|episode|ep|volume|vol|kapitel|teil|chapitre|partie|cap[ií]tulo|parte"
    "|capitolo|глава|часть"
)
SEPARATOR = r"[\s_.,:#–—-]"
# "The Sea - Chapter 3, Storm", "ch01", "Part II"; not "The Part I Played", "Book Club", "Part C"
CHAPTER = re.compile(
    rf"^(?P<work>.*?)(?:^|{SEPARATOR})(?:{PARTS}){SEPARATOR}*"
    rf"(?:\d{{1,3}}(?!\d)|{COUNTED}(?![^\W_])|(?-i:(?=[IVXL]){ROMAN})(?=$|[_.,:–—-]|\s+[–—-])).*$",
    re.IGNORECASE,
)
NTH = re.compile(r"^(?P<work>.*?)第\s*[\d〇零一二三四五六七八九十百]+\s*[章回話话部卷].*$")
DATE = rf"\d{{4}}{SEPARATOR}\d\d?(?:{SEPARATOR}\d\d?)?|\d\d?{SEPARATOR}\d\d?{SEPARATOR}(?:\d\d){{1,2}}"
EDGE = re.compile(
    rf"^(?P<work>.*?){SEPARATOR}*\b(?:prologue|epilogue|interlude|foreword|afterword|prolog|epilog)$",
    re.IGNORECASE,
)
NUMBERED = re.compile(rf"^(?P<work>.*[^\W\d_].*?){SEPARATOR}+(?:{DATE}|\d{{1,3}})$")
# "The Sea (2)", "Copy of The Sea", "The Sea - Copy", "The Sea, draft 2", "The Sea v3"
COPY = re.compile(
    rf"^copy of |{SEPARATOR}*\(\d{{1,3}}\)$|{SEPARATOR}+(?:copy|draft|version|rev)(?:{SEPARATOR}*\d+)?$"
    rf"|{SEPARATOR}+v\d+$",
    re.IGNORECASE,
)
# "Story 7" is the seventh story, not the seventh part of one
ANY = set("story stories tale text txt untitled document doc file sample example new prompt essay".split())
ANY |= {
    "story number",
    "story no",
    "number",
    "fiction",
    "flash",
    "flash fiction",
    "short",
    "shorts",
    "short story",
    "my story",
    "wip",
    "drabble",
}
ANY |= {"microfiction", "vignette", "piece", "untitled document", "new document", "work in progress"}
ANY |= set("geschichte erzählung histoire nouvelle cuento racconto рассказ 故事".split())


def work(name: str, title: str | None) -> str:
    """The work a file belongs to: its first sub-folder, else what its name or its title says.

    What is in doubt goes together, for held-out text must not stand in training; but numbers alone, or with a
    word such as "story" before them, count stories.
    """
    name = unicodedata.normalize("NFC", name)
    *archive, first, rest = re.match(r"((?:[^/]*\.zip/)*)([^/]*)/?(.*)", name, re.IGNORECASE).groups()
    stem = first if rest else re.sub(r"\.\w{1,8}$", "", first)
    part = _whole(stem)
    if not rest and part is None and title and (named := title_work(title)):
        return named
    inside = "".join(archive).casefold()
    return inside + (_plain(stem) if part is None else part or "chapters")


def title_work(title: str) -> str:
    """The title without a chapter's number; "" of a title that is one, or says nothing."""
    title = unicodedata.normalize("NFC", title)
    part = _whole(title)
    named = _plain(title) if part is None else part
    return "" if named in ANY or re.fullmatch(PARTS, named) else named


def _whole(name: str) -> str | None:
    """The work's name, "" for "Chapter 3"; None of a name that is no part's and no copy's."""
    shorter = name
    while (cut := COPY.sub("", shorter).strip()) and cut != shorter:
        shorter = cut
    found = CHAPTER.match(shorter) or NTH.match(shorter) or EDGE.match(shorter)
    if found is None and (found := NUMBERED.match(shorter)) and _plain(found["work"]) in ANY:
        found = None
    if found:
        return _plain(found["work"])
    return None if shorter == name or _plain(shorter) in ANY else _plain(shorter)


def _plain(name: str) -> str:
    """As names are compared: case, separators and spaces aside."""
    return re.sub(rf"{SEPARATOR}+", " ", name).strip().casefold()
