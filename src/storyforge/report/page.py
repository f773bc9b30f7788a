"""Markdown of the report, and the HTML page made from it.

The report's sections write Markdown. What came from elsewhere - a story, a prompt, the name of a group - goes
through `plain`, `quoted`, `code` or `fenced` first: then nothing in it is read as markup, in either form.
"""

import base64
import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

from storyforge.core.text import printable

SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~$&]|:(?=//)")  # "$": GitHub reads mathematics, "://": it makes a link
BLOCK_START = re.compile(r"^(\d*)([-+=.)])")  # of a list or a rule, at the start of a line
BREAK = "<br>"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the page fetches and runs nothing


def plain(text: str, line_end: str = " ") -> str:
    """The text as one line of Markdown, in which no character is markup; for use inside a line."""
    kept = (" ".join(line.split()) for line in printable(text).splitlines())
    return line_end.join(SPECIAL.sub(r"\\\g<0>", line) for line in kept)


def quoted(text: str) -> str:
    """The text as a block of its own, with its line ends."""
    return "> " + BLOCK_START.sub(r"\1\\\2", plain(text, BREAK))


def code(text: str) -> str:
    """The text in a line, in a fixed-width font."""
    kept = " ".join(printable(text).split()) or " "
    fence = _fence(kept, 1)
    return f"{fence} {kept} {fence}" if "`" in kept else f"{fence}{kept}{fence}"


def fenced(text: str) -> str:
    """The text as a block in a fixed-width font."""
    fence = _fence(text, 3)
    return "\n".join([fence, *printable(text).splitlines(), fence])


def _fence(text: str, least: int) -> str:
    return "`" * max([least, *(len(run) + 1 for run in re.findall("`+", text))])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Cells are Markdown; a bar in one, as `code` leaves it, makes no further column."""
    drawn = [" | ".join(re.sub(r"(?<!\\)\|", r"\\|", cell) for cell in row) for row in (head, *rows)]
    return "\n".join([f"| {drawn[0]} |", f"|{'---|' * len(head)}", *(f"| {row} |" for row in drawn[1:])])


def cell(text: str, end: str) -> str:
    """A writer's text and how it ended, as a table's cell."""
    return f"{plain(text, BREAK) or '*nothing*'}{BREAK}{BREAK}*{plain(end)}*"


def page(title: str, text: str, pictures: Mapping[str, bytes], style: str) -> str:
    """One HTML file that needs no other, from Markdown; `pictures` are PNGs by name, `style` is CSS."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.inline.ruler.before("html_inline", "break", _line_break)
    tokens = reader.parse(text)
    anchors: Counter[str] = Counter()
    for before, token in pairwise(tokens):
        if before.type == "heading_open":  # the same anchors as GitHub's
            anchor = re.sub(r"[^\w -]", "", token.content.lower()).replace(" ", "-")
            before.attrSet("id", f"{anchor}-{anchors[anchor]}" if anchors[anchor] else anchor)
            anchors[anchor] += 1
        for child in token.children or ():
            if child.type == "image":
                png = pictures[str(child.attrs["src"]).removesuffix(".png")]
                child.attrSet("src", f"data:image/png;base64,{base64.b64encode(png).decode()}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"{reader.renderer.render(tokens, reader.options, {})}</main>\n</body>\n</html>\n"
    )


def _line_break(state: StateInline, silent: bool) -> bool:
    """The one tag that is read, since a table's cell has no other second line; `plain` escapes it."""
    if not state.src.startswith(BREAK, state.pos):
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos += len(BREAK)
    return True
