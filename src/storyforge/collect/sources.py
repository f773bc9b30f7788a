"""One function a source: its raw form → stories, or Unusable with the reason there is none.

Texts stay as the source gives them; making prose of them is the work of preprocess.
"""

import hashlib
import re
from typing import Any

from storyforge.collect.reading import Unusable, require_text
from storyforge.core.records import Story

LICENCES = {
    "shakespeare": "MIT (edition); public domain (text)",
    "writingprompts": "rights with the authors, who wrote on Reddit; the collection's card says MIT",
    "tinystories": "CDLA-Sharing-1.0",
    "folder": "not stated: your own files",
}
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
    play = title[1] if title else _title(file)
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


def _title(file: str) -> str:
    """Of the one play that has lost its title line."""
    return file.removesuffix(".md").replace("-", " ").title().replace(" For ", " for ")


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


def folder_text(name: str, text: str) -> Story:
    """A whole file as one story, the file its own group."""
    return _story("folder", text, group=name, meta={"file": name})


def folder_row(name: str, row: dict[str, Any]) -> Story:
    """A JSON Lines row: `text`, and perhaps `prompt`, `group`, `title`.

    Without a group it goes with rows of the same prompt, else alone: a file of many stories is not one book.
    """
    for key in ("text", "prompt", "group", "title"):
        if row.get(key) is not None or key == "text":
            require_text(row.get(key), key)
    prompt, title = row.get("prompt"), row.get("title")
    meta = {"file": name} | ({"title": title} if title else {})
    group = row.get("group") or (prompt_group(prompt) if prompt else "")
    return _story("folder", row["text"], prompt=prompt, group=group, meta=meta)


def _story(
    source: str, text: str, prompt: str | None = None, group: str = "", meta: dict | None = None
) -> Story:
    """Grouped under its own id where no group is given."""
    require_text(text, "text")
    identity = story_id(source, text)
    return Story(identity, source, group or identity, prompt, text, LICENCES[source], meta or {})
