"""What stands before and after a story in its manuscript or book: an address, a table, a page on its author.

Taken off only where nothing else can be meant: what may be the story's stays.
"""

import re

from storyforge.collect.layout import BYLINE, HEADING

HEAD_LINES, HEAD_WIDTH = 16, 80  # lines above a manuscript's title, and characters of each
MAIL = re.compile(r"^[\s\w.:–-]*?[\w.+-]+@[\w-]+(?:\.[\w-]+)+\s*$", re.MULTILINE)
PHONE = re.compile(
    r"^[^\w\n]*(?:(?:tel|phone|mobile|cell)[.:]*\s*)?\+?[\d()][\d() .–-]{7,18}\d\s*$", re.M | re.I
)
LENGTH = re.compile(
    r"(?:^|\s{2,}|\t)\W*(?:about|approx\w*\.?|circa|word count:?|~)?\s*\d[\d,. ]{0,7}\s*words?\.?\s*$"
    r"|^\W*word count:?\s*\d[\d,. ]{0,7}\s*$",
    re.MULTILINE | re.IGNORECASE,
)
CONTENTS = re.compile(r"^[#*_\s]*(?:table of )?contents[*_#:\s]*$", re.IGNORECASE)
LEADER = re.compile(r"[\s.…]*\d*\s*$")  # dots and the page
BACK = re.compile(
    r"^[#*_ \t]*(?:about the authors?|(?:also|other books) by (?:(?!\.$).){1,50})[*_#: \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
MOST_BACK_WORDS, LEAST_STORY_WORDS = 300, 100


def without_address(text: str) -> tuple[str, int]:
    """Without a manuscript's block of name, address and word count above its title; whether there was one.

    Two of mail address, telephone number and word count must stand in it, or one, and a by-line after it.
    """
    lines = text.lstrip("\n").split("\n")
    head = lines[:HEAD_LINES]
    marks = {
        n: kind for n, line in enumerate(head) for kind in (MAIL, PHONE, LENGTH) if kind.search(line)
    }  # line → which of them it is
    if not marks:
        return text, 0
    last = max(marks)
    by = any(
        BYLINE.match(line.strip()) and not line.strip().endswith(".") for line in lines[last + 1 : last + 12]
    )
    sure = len(set(marks.values())) > 1 or by
    if not sure or any(len(line) > HEAD_WIDTH for line in lines[: last + 1]):
        return text, 0
    return "\n".join(lines[last + 1 :]).lstrip("\n"), 1


def without_contents(text: str) -> tuple[str, int]:
    """Without a table of contents: lines under that word, each of which stands in the text again."""
    lines = text.split("\n")
    filled = [n for n, line in enumerate(lines) if line.strip()]
    start = next((at for at, n in enumerate(filled[:HEAD_LINES]) if CONTENTS.match(lines[n])), None)
    if start is None:
        return text, 0
    after = [_bare(lines[n]) for n in filled]
    end = start + 1
    while end < len(filled) and after[end] and after[end] in after[end + 1 :]:
        end += 1
    if end - start < 3:
        return text, 0
    return "\n".join([*lines[: filled[start]], *lines[filled[end] :]]) if end < len(filled) else text, 1


def _bare(line: str) -> str:
    return LEADER.sub("", line.strip(" \t#*_-•")).casefold() or line.strip()


def without_author_page(text: str) -> tuple[str, int]:
    """Without a short last section "About the Author" or "Also by …", behind a text that is much longer."""
    for found in BACK.finditer(text):
        before, rest = text[: found.start()], text[found.end() :]
        alone = before.endswith("\n\n") and (rest.startswith("\n\n") or found[0].lstrip().startswith("#"))
        few = len(rest.split()) <= min(MOST_BACK_WORDS, len(before.split()) // 2)
        if alone and few and len(before.split()) >= LEAST_STORY_WORDS and not _goes_on(rest):
            return before.rstrip("\n"), 1
    return text, 0


def _goes_on(rest: str) -> bool:
    """Whether a chapter of the book comes after it."""
    return any(HEADING.match(line.lstrip("# ")) for line in rest.split("\n") if line.strip())
