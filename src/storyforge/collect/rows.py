"""Rows of JSON and CSV, in the forms that data sets have → prompts, texts and what is said of them."""

from collections.abc import Iterator
from typing import Any

from storyforge.collect.reading import Unusable, require_text

TEXTS = ("text", "story")
PAIRS = (("prompt", "completion"), ("instruction", "output"))
TURNS = {"messages": ("role", "content"), "conversations": ("from", "value")}  # the second is ShareGPT's
ASKS, ANSWERS = {"user", "human"}, {"assistant", "gpt", "model", "bot"}
WANTED = "text or story; prompt and completion; instruction and output; messages; or conversations"
KNOWN = {*TEXTS, *TURNS, *(key for pair in PAIRS for key in pair)}
ABOUT = ("title", "author", "date", "tags")


def exchanges(row: dict[str, Any]) -> list[tuple[str | None, str]]:
    """The prompts, or None, and texts of one row; Unusable names the keys found where none is known."""
    given, row = row, {key: value for key, value in row.items() if not _empty(value)}
    for key, (role, content) in TURNS.items():
        if key in row:
            return list(_turns(row[key], role, content)) or _missing(given)
    prompt = _text(row, "prompt")
    for key in TEXTS:
        if key in row:
            return [(prompt, _text(row, key))]
    for asked, answer in PAIRS:
        if answer in row:
            added = _text(row, "input") if asked == "instruction" else None
            parts = [part for part in (_text(row, asked), added) if part]
            return [("\n\n".join(parts) or None, _text(row, answer))]
    return _missing(given)


def about(row: dict[str, Any]) -> dict[str, Any]:
    """Title, author, date and tags, where the row has them."""
    found = {key: row[key] for key in ABOUT if not _empty(row.get(key))}
    if isinstance(found.get("tags"), list):
        found["tags"] = [tag for tag in found["tags"] if isinstance(tag, str) and tag.strip()]
        for tag in found["tags"]:
            require_text(tag, "tags")
    return {
        key: value if key == "tags" and isinstance(value, list) else _text(found, key)
        for key, value in found.items()
    }


def group(row: dict[str, Any]) -> str | None:
    return None if _empty(row.get("group")) else _text(row, "group")


def listed(value: Any) -> list[Any]:
    """The rows of a JSON file: a list, the one list that an object holds, or the object itself."""
    if isinstance(value, dict) and not KNOWN & value.keys():
        lists = [each for each in value.values() if isinstance(each, list)]
        value = lists[0] if len(lists) == 1 else value
    if not isinstance(value, list):
        return [value]
    return [{"text": row} if isinstance(row, str) else row for row in value]


def _missing(row: dict[str, Any]) -> list:
    if any(key in row for key in TURNS):
        raise Unusable("no_text", "no turn of the conversation is an assistant's")
    if any(row.get(key) is not None for key in (*TEXTS, *(answer for _, answer in PAIRS))):
        raise Unusable("empty_text")
    keys = ", ".join(str(key)[:40] for key in [key for key in row if not _empty(row[key])][:8]) or "none"
    raise Unusable("no_text", f"its keys are {keys}; wanted are {WANTED}")


def _empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _text(row: dict[str, Any], key: str) -> str | None:
    """None where it is absent; a whole number is written out where it names something, as years do."""
    value = row.get(key)
    if isinstance(value, int) and not isinstance(value, bool) and key in ("group", *ABOUT):
        value = str(value)
    if value is not None:
        require_text(value, key)
    return value


def _turns(turns: Any, role: str, content: str) -> Iterator[tuple[str | None, str]]:
    """Each answer with what was asked before it."""
    if not isinstance(turns, list):
        raise Unusable("no_text", "its conversation is no list of turns")
    asked = None
    for turn in turns:
        if not isinstance(turn, dict):
            raise Unusable("no_text", "a turn of its conversation is no object")
        who, said = turn.get(role), turn.get(content)
        if isinstance(said, list):  # of parts, each of a type
            said = "\n\n".join(
                part["text"] for part in said if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        if _empty(said):
            continue
        require_text(said, "text")
        if who in ASKS:
            asked = said
        elif who in ANSWERS:
            yield asked, said
            asked = None
