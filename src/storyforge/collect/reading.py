"""Files of unknown making → lines, text and JSON objects, or the reason why not."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

MAX_RECORD_BYTES = 16 << 20  # three times the whole of Shakespeare


class Unusable(ValueError):
    """A record that no story can be made of; its text is the reason, a word to be counted."""


def lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """Number, offset and bytes of each line that is not blank, split on b"\n" alone.

    A line longer than MAX_RECORD_BYTES is cut to one byte more: memory stays flat whatever comes.
    """
    number = offset = 0
    while line := file.readline(MAX_RECORD_BYTES + 1):
        start, offset, number = offset, offset + len(line), number + 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_RECORD_BYTES)
            offset += len(rest)
        if line.strip():
            yield number, start, line.removeprefix(codecs.BOM_UTF8) if start == 0 else line


def whole(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """A file as the one record it holds, cut like a line."""
    yield 1, 0, file.read(MAX_RECORD_BYTES + 1).removeprefix(codecs.BOM_UTF8)


def decoded(data: bytes) -> str:
    """Strict UTF-8."""
    if len(data) > MAX_RECORD_BYTES:
        raise Unusable("too_long")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Unusable("invalid_utf8") from None


def json_object(data: bytes) -> dict[str, Any]:
    """Unusable where it is broken, ambiguous, too deep, or no JSON to anyone but Python."""
    try:
        value = json.loads(decoded(data), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except Unusable:
        raise
    except RecursionError:
        raise Unusable("too_deep") from None
    except ValueError:
        raise Unusable("not_json") from None
    if not isinstance(value, dict):
        raise Unusable("not_an_object")
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise Unusable("duplicate_key")  # Python would take the last in silence
    return dict(pairs)


def _no_constant(name: str) -> None:
    raise Unusable("not_a_number")  # NaN and Infinity


def require_text(value: Any, name: str) -> None:
    """Unusable for what is no text, has none, or could not be written to a file."""
    if value is None:
        raise Unusable(f"no_{name}")
    if not isinstance(value, str):
        raise Unusable(f"{name}_not_text")
    if "\0" in value:
        raise Unusable("nul")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Unusable("lone_surrogate") from None
    if not value.strip():
        raise Unusable(f"empty_{name}")
