"""Files from outside, which may be broken or hostile → their records, and text or JSON of each."""

import codecs
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.parquet

from storyforge.core.archives import members
from storyforge.core.errors import UserError

SUFFIXES = (".txt", ".md", ".jsonl")
MAX_RECORD_BYTES = 16 << 20  # three times the whole of Shakespeare


class Unusable(ValueError):
    """A record that no story can be made of; its text is the reason, a word to be counted."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record as bytes, not decoded yet, and its place."""

    file: str
    number: int  # line or row, from 1
    offset: int | None  # in bytes, where the file has lines
    parts: tuple[bytes | None, ...]  # one a column; one in all where there are no columns

    @property
    def bytes(self) -> bytes:
        return b"\0".join(part or b"" for part in self.parts)


def archived(wheel: Path, pattern: str) -> Iterator[Record]:
    """Each file of the archive whose name matches."""
    for name, data in members(wheel, pattern):
        yield Record(name, 1, 0, (data,))


def tables(files: Mapping[str, Path], columns: tuple[str, ...]) -> Iterator[Record]:
    """The rows of parquet files, undecoded: pyarrow would fail a thousand rows for one that is not UTF-8.

    UserError where a file is broken, a column is missing or holds something else than text.
    """
    for name, path in files.items():
        numbers = count(1)
        try:
            # with a buffer, or pyarrow holds a whole row group, which may be a whole file
            with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
                _require_columns(table.schema_arrow, columns, name)
                for batch in table.iter_batches(batch_size=1000, columns=list(columns), use_threads=False):
                    raw = (batch[column].cast(pyarrow.large_binary()).to_pylist() for column in columns)
                    for parts in zip(*raw, strict=True):
                        yield Record(name, next(numbers), None, parts)
        except (pyarrow.ArrowException, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: cannot be read as parquet: {why}") from None


def _require_columns(schema: pyarrow.Schema, columns: tuple[str, ...], name: str) -> None:
    for column in columns:
        if column not in schema.names:
            raise UserError(f"{name}: column '{column}' is missing; there are: {', '.join(schema.names)}")
        if schema.field(column).type not in (pyarrow.string(), pyarrow.large_string()):
            raise UserError(f"{name}: column '{column}' holds {schema.field(column).type}, not text")


def own_files(folder: Path) -> dict[str, Path]:
    """Name → path of each story file in the folder, by name; hidden ones are left out."""
    named = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(part.startswith(".") for part in name.parts):
            continue
        if path.is_symlink() and not path.exists():
            raise UserError(f"{path}: a link to a missing file: restore the file or remove the link")
        if path.is_file():
            named[name.as_posix().encode(errors="backslashreplace").decode()] = path
    if not named:
        raise UserError(
            f"{folder}: no .txt, .md or .jsonl file: "
            "put stories there (and run `make stories`, for experiments with --temp or --queue), "
            "or take collect.folder out of params.yaml"
        )
    return dict(sorted(named.items()))


def texts(files: Mapping[str, Path]) -> Iterator[Record]:
    """The lines of each .jsonl file; any other file is one record."""
    for name, path in files.items():
        try:
            file = path.open("rb")
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        with file:
            if path.suffix.lower() == ".jsonl":
                yield from (Record(name, number, offset, (data,)) for number, offset, data in lines(file))
            else:
                data = file.read(MAX_RECORD_BYTES + 1).removeprefix(codecs.BOM_UTF8)
                yield Record(name, 1, 0, (data,))


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


def decoded(data: bytes) -> str:
    """The text of these bytes; Unusable where they are not UTF-8, or cut."""
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
