"""Prose → passages of a bounded length, each a slice of its text, cut where a reader would pause."""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import sentencex

from storyforge.preprocess.language import Measure, word_count
from storyforge.preprocess.passages import Passage, even_cuts

# "***", "* * *", "#", "~~~" or "—" alone on a line, between scenes
RULE = r"[^\S\n]*([*#~_=•⁂–—-])(?:[^\S\n]*\1){0,20}[^\S\n]*(?=\n|\Z)"
# The rule between scenes stays with the scene it ends: `++` keeps the lookahead from seeing half of a break.
BLANK_LINES = re.compile(rf"\n(?:[^\S\n]*\n)++(?!{RULE})")
LINE_BREAK = re.compile(rf"\n(?!\n*+{RULE})")
LEADING_RULE = re.compile(rf"\s*^{RULE}", re.MULTILINE)
LAST_RULE = re.compile(rf"\n{RULE}\s*\Z")
LONGEST_HEADING = 30  # characters, all letters of them capitals: `CHAPTER I.` and `INT.` are no sentences
FINEST = 30  # parts that a passage is made of at most; the time it takes to cut evenly grows with them


def prose_passages(text: str, limit: float, length: Measure = word_count) -> list[Passage]:
    """The fewest passages of at most `limit`, and among those the most even.

    Cut at blank lines; where a paragraph is longer, at its line breaks, then between sentences, then words.
    All that is left out is white space at the cuts.
    """
    units = _merged(_units(text, limit, length), limit / FINEST, length)
    cuts = even_cuts(list(map(length, units)), limit)
    return [
        Passage("".join(units[start:end]).strip("\n").rstrip(), start == 0, end == len(units))
        for start, end in pairwise(cuts)
    ]


def opening_part(text: str, limit: float, length: Measure = word_count) -> Passage:
    """As many whole paragraphs as fit, and at least the beginning of the first."""
    units = list(_units(text, limit, length))
    taken, reached = 0, 0.0
    while taken < len(units) and (taken == 0 or reached + length(units[taken]) <= limit):
        reached += length(units[taken])
        taken += 1
    part = "".join(units[:taken]).strip()
    ends = taken == len(units)
    return Passage(part if ends else LAST_RULE.sub("", part).rstrip(), opens=True, ends=ends)


def sentences(text: str) -> list[str]:
    """Slices that give the text again. A heading or an abbreviation in capitals ends none."""
    found = [""]
    for part in sentencex.segment("en", text):  # "en" knows the marks of other scripts too
        before = found[-1].strip()
        heading = before.isupper() and len(before) <= LONGEST_HEADING
        if not before or heading or re.fullmatch(RULE, part.strip()):
            found[-1] += part
        else:
            found.append(part)
    return found


def last_page(text: str, limit: float, length: Measure = word_count) -> str:
    """The end of a text, at most `limit` long: it begins with a paragraph, else a line or a sentence."""
    units = list(_units(text.rstrip(), limit, length))
    start, reached = len(units), 0.0
    while start and reached + length(units[start - 1]) <= limit:
        start -= 1
        reached += length(units[start])
    page = "".join(units[start:]).strip("\n")
    rule = LEADING_RULE.match(page)
    return page[rule.end() if rule else 0 :].strip("\n")


def continuation_prompt(page: str) -> str:
    """What a writer is asked who goes on from a page, when it is trained and when it is used."""
    return f"Here is a page of a story. Go on from where it ends.\n\n{page}"


def _units(text: str, limit: float, length: Measure) -> Iterator[str]:
    return _cut(text, limit, length, (_after(BLANK_LINES), _after(LINE_BREAK), sentences, _words))


def _cut(
    text: str, limit: float, length: Measure, ways: Sequence[Callable[[str], Sequence[str]]]
) -> Iterator[str]:
    """The text where it fits, else its parts, cut the first way and where needed the next."""
    if length(text) <= limit or len(text) < 2:
        yield text
    elif ways:
        parts = ways[0](text)
        if ways[0] is _words:
            parts = _merged(parts, limit, length)
        for part in parts:
            yield from _cut(part, limit, length, ways[1:])
    else:  # one word: text without spaces or stops
        for half in (text[: len(text) // 2], text[len(text) // 2 :]):
            yield from _cut(half, limit, length, ())


def _after(pattern: re.Pattern[str]) -> Callable[[str], list[str]]:
    """A function that cuts a text behind each match."""

    def cut(text: str) -> list[str]:
        places = [match.end() for match in pattern.finditer(text)]
        return [text[start:end] for start, end in pairwise([0, *places, len(text)])]

    return cut


def _words(text: str) -> list[str]:
    return re.findall(r"\s*\S+\s*", text)


def _merged(parts: Sequence[str], limit: float, length: Measure) -> list[str]:
    """Neighbours joined as long as they are not longer than `limit` together."""
    found: list[list[str]] = []
    room = 0.0
    for part in parts:
        size = length(part)
        if found and size <= room:
            found[-1].append(part)
            room -= size
        else:
            found.append([part])
            room = limit - size
    return list(map("".join, found))
