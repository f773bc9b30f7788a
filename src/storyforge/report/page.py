"""Blocks of a document, as Markdown and as one HTML page: whatever is claimed is written once.

In our own words `code` and **bold** are markup. What came from elsewhere - a story, a prompt, the name of a
group - may stand in any block: it is escaped in both forms.
"""

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

MARKUP = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*)")
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
STYLE = """
:root{color-scheme:light dark;--paper:#fdfdfb;--ink:#1d1f23;--soft:#5b616b;--line:#d9dbd6;--tint:#f3f3ee;
--lead:#a33a22}
@media(prefers-color-scheme:dark){:root{--paper:#16181c;--ink:#e6e6e3;--soft:#a2a8b3;--line:#363a42;--tint:#1f2228;
--lead:#f08a6c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:1rem/1.6 system-ui,sans-serif;
overflow-wrap:break-word}
main{max-width:46rem;margin:auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.25}h2{margin-top:2.5rem;border-top:1px solid var(--line);padding-top:1.5rem}
h1,h2,h3{text-wrap:balance}h3{margin:1.8rem 0 .4rem}li{margin:.5rem 0}
figure{margin:1.2rem 0}img{display:block;width:100%;max-width:38rem;height:auto}
figcaption,.note{color:var(--soft);font-size:.875rem}
.wide{overflow-x:auto;margin:1rem 0}table{border-collapse:collapse;font-size:.9rem;
font-variant-numeric:tabular-nums}
th,td{padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600}
.short td{white-space:nowrap}
code,pre{font:.85em/1.5 ui-monospace,monospace}code{overflow-wrap:anywhere}
pre{background:var(--tint);padding:1rem;overflow-x:auto;border-radius:.4rem}
blockquote{margin:.4rem 0 .8rem;padding-left:.9rem;border-left:3px solid var(--lead);color:var(--soft);
white-space:pre-line}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:1rem}
.pair div{background:var(--tint);border-radius:.4rem;padding:.8rem 1rem}
.pair b{color:var(--lead);font-size:.875rem}
.pair p{white-space:pre-line;margin:.3rem 0;font:.95rem/1.55 Georgia,serif}
@media(max-width:40rem){.pair{grid-template-columns:1fr}main{padding-top:.5rem}}
""".strip()
NOTHING = "<i>nothing</i>"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # the page fetches and runs nothing


@dataclass(frozen=True, slots=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Picture:
    name: str
    caption: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Text as it stands, shown when asked for."""

    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """What writers made of a prompt: name → the text, and how it ended."""

    prompt: str
    written: Mapping[str, tuple[str, str]]
    note: str


Block = Heading | Text | Points | Table | Picture | Folded | Answers


def markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(map(_markdown, blocks)) + "\n"


def page(title: str, blocks: Sequence[Block], pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    """One file that needs no other: `pictures` are PNGs for light and for dark, by name."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_plain(title)}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(_html(block, pictures) for block in blocks)
        + "\n</main>\n</body>\n</html>\n"
    )


def lines(text: str) -> list[str]:
    """Whatever a text takes for the end of a line; nothing that steers a terminal or a parser."""
    return CONTROL.sub("", text).splitlines()


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_marked(text)}"
        case Text(text):
            return _marked(text)
        case Points(items):
            return "\n".join(f"- {_marked(item)}" for item in items)
        case Table(head, rows):
            drawn = [f"| {' | '.join(map(_marked, row))} |" for row in (head, *rows)]
            return "\n".join([drawn[0], f"|{'---|' * len(head)}", *drawn[1:]])
        case Picture(name, caption):
            return f"![{_marked(caption)}]({name}.png)\n\n{_marked(caption)}"
        case Folded(title, text):
            fence = "`" * (max([2, *map(len, re.findall("`+", text))]) + 1)
            top = f"<details><summary>{_broken(title)}</summary>"
            return "\n".join([top, "", fence, *lines(text), fence, "", "</details>"])
        case Answers(prompt, written, note):
            width = 100 // len(written)
            names = "".join(f"<th>{_broken(name)}</th>" for name in written)
            cells = "".join(
                f'<td width="{width}%">{_broken(text) or NOTHING}<br><sub>{_broken(end)}</sub></td>'
                for text, end in written.values()
            )
            table = f'<table>\n<tr>{names}</tr>\n<tr valign="top">{cells}</tr>\n</table>'
            return f"<blockquote>{_broken(prompt)}</blockquote>\n\n{table}\n\n<sub>{_broken(note)}</sub>"


def _html(block: Block, pictures: Mapping[str, tuple[bytes, bytes]]) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_tagged(text)}</h{level}>"
        case Text(text):
            return f"<p>{_tagged(text)}</p>"
        case Points(items):
            return f"<ul>{''.join(f'<li>{_tagged(item)}</li>' for item in items)}</ul>"
        case Table(head, rows):
            top = "".join(f"<th>{_tagged(cell)}</th>" for cell in head)
            body = "\n".join(
                f"<tr>{''.join(f'<td>{_tagged(cell)}</td>' for cell in row)}</tr>" for row in rows
            )
            kind = "wide" if len(head) < 3 else "wide short"  # of two columns the second may be a sentence
            return f'<div class="{kind}"><table>\n<tr>{top}</tr>\n{body}\n</table></div>'
        case Picture(name, caption):
            light, dark = (
                f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in pictures[name]
            )
            return (
                f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
                f'<img src="{light}" alt="{_plain(caption)}"></picture>'
                f"<figcaption>{_tagged(caption)}</figcaption></figure>"
            )
        case Folded(title, text):
            return f"<details><summary>{_plain(title)}</summary><pre>{_plain(text)}</pre></details>"
        case Answers(prompt, written, note):
            return f"<blockquote>{_plain(prompt)}</blockquote>\n{''.join(_columns(written))}" + (
                f'<p class="note">{_plain(note)}</p>'
            )


def _columns(written: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    yield '<div class="pair">'
    for name, (text, end) in written.items():
        yield f'<div><b>{_plain(name)}</b><p dir="auto">{_plain(text) or NOTHING}</p>'
        yield f'<span class="note">{_plain(end)}</span></div>'
    yield "</div>\n"


def _marked(text: str) -> str:
    """On one line, all punctuation that Markdown reads escaped, but for our own markup."""
    parts = MARKUP.split(" ".join(CONTROL.sub("", text).split()))
    return "".join(_kept(part) if at % 2 else SPECIAL.sub(r"\\\1", part) for at, part in enumerate(parts))


def _kept(part: str) -> str:
    if part.startswith("`"):
        return part.replace("|", r"\|")  # a table's column would end there
    return f"**{SPECIAL.sub(chr(92) * 2 + r'1', part[2:-2])}**"


def _tagged(text: str) -> str:
    parts = MARKUP.split(" ".join(CONTROL.sub("", text).split()))
    return "".join(_tag(part) if at % 2 else html.escape(part) for at, part in enumerate(parts))


def _tag(part: str) -> str:
    name, inner = ("code", part[1:-1]) if part.startswith("`") else ("strong", part[2:-2])
    return f"<{name}>{html.escape(inner)}</{name}>"


def _broken(text: str) -> str:
    """Escaped, on one line of the file: a blank one would end the HTML that stands in Markdown."""
    return "<br>".join(map(html.escape, lines(text)))


def _plain(text: str) -> str:
    return html.escape("\n".join(lines(text)))
