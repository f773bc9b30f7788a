"""Files from outside, which may be broken or hostile → their records, and text or JSON of each."""

import codecs
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from storyforge.core.archives import members
from storyforge.core.errors import UserError

MAX_RECORD_BYTES = 16 << 20  # three times the whole of Shakespeare
MAX_BATCH_BYTES = 256 << 20  # of a table's texts at once; one text repeated makes gigabytes of a small file
TABLE_BYTES = 16 << 20  # of a parquet file, for one task: some 30,000 short stories, a second
MOST_TIMES = 200  # the size of its file that a table's text may have beyond that; compression of prose: 10


class Unusable(ValueError):
    """A record that no story can be made of; its text is the reason, a word to be counted."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.detail = detail  # what a person wants to know besides; never of the text


@dataclass(frozen=True, slots=True)
class Record:
    """One record as bytes, not decoded yet, and its place."""

    file: str
    number: int  # line or row, from 1
    offset: int | None  # in bytes, where the file has lines
    parts: tuple[bytes | None, ...]  # one a column; one in all where there are no columns
    about: dict[str, Any] = field(default_factory=dict)  # what a document says of itself
    unusable: Unusable | None = None  # the reason, where not even its bytes could be had

    @property
    def bytes(self) -> bytes:
        return b"\0".join(part or b"" for part in self.parts)


def suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def stem(name: str) -> str:
    return PurePosixPath(name).stem


def archived(wheel: Path, pattern: str) -> Iterator[Record]:
    """Each file of the archive whose name matches."""
    for name, data in members(wheel, pattern):
        yield Record(name, 1, 0, (data,))


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of a parquet file: some of its row groups, which one task reads."""

    name: str
    path: Path
    columns: tuple[str, ...]
    groups: range
    first: int  # number of its first row, from 1
    rows: int
    most_bytes: int  # of its text

    def records(self) -> Iterator[Record]:
        """The rows, undecoded: pyarrow would fail a thousand of them for one that is not UTF-8.

        UserError where the file is broken, or is not seen on the machine that the task runs on.
        """
        if not self.path.is_file():
            remedy = "set STORYFORGE_CACHE to a folder that all nodes see"
            raise UserError(f"{platform.node()} does not see {self.path}: {remedy}")
        numbers, columns, size = count(self.first), list(self.columns), 0
        # with a buffer, or pyarrow holds a whole row group, which may be a whole file
        options = {"pre_buffer": False, "buffer_size": 1 << 20}
        with _readable(self.name), pyarrow.parquet.ParquetFile(self.path, **options) as table:
            rows = max(1, min(1000, MAX_BATCH_BYTES // max(1, self._longest_repeated())))
            for batch in table.iter_batches(rows, list(self.groups), columns, use_threads=False):
                size += batch.nbytes
                if size > self.most_bytes:
                    raise UserError(f"{self.name}: its text is over {MOST_TIMES} times as large as the file")
                raw = (batch[column].cast(pyarrow.large_binary()).to_pylist() for column in columns)
                for parts in zip(*raw, strict=True):
                    yield Record(self.name, next(numbers), None, parts)

    def _longest_repeated(self) -> int:
        """Bytes of the longest text in its dictionaries, to which rows refer by number."""
        longest, columns = 0, list(self.columns)
        with pyarrow.parquet.ParquetFile(self.path, pre_buffer=False, read_dictionary=columns) as table:
            for group in self.groups:
                for batch in islice(table.iter_batches(1, [group], columns, use_threads=False), 1):
                    for column in batch.columns:
                        lengths = pyarrow.compute.binary_length(column.dictionary)
                        longest = max(longest, pyarrow.compute.max(lengths).as_py() or 0)
        return longest


def tables(files: Mapping[str, Path], columns: tuple[str, ...]) -> Iterator[Table]:
    """All rows of parquet files, in shares of about TABLE_BYTES of a file that end where row groups do.

    UserError where a file is broken, a column is missing, there twice, or holds something else than text.
    """
    for name, path in files.items():
        with _readable(name), pyarrow.parquet.ParquetFile(path, pre_buffer=False) as table:
            _require_columns(table.schema_arrow, columns, name)
            size, groups, first = path.stat().st_size, table.num_row_groups, 1
            shares = max(1, min(groups, size // TABLE_BYTES))
            for share in range(shares):
                mine = range(groups * share // shares, groups * (share + 1) // shares)
                most_bytes = max(MAX_BATCH_BYTES, MOST_TIMES * size // shares)
                rows = sum(table.metadata.row_group(group).num_rows for group in mine)
                yield Table(name, path, columns, mine, first, rows, most_bytes)
                first += rows


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """UserError for what pyarrow says of a broken file."""
    try:
        yield
    except (pyarrow.ArrowException, OSError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{name}: cannot be read as parquet: {why}") from None


def _require_columns(schema: pyarrow.Schema, columns: tuple[str, ...], name: str) -> None:
    for column in columns:
        if column not in schema.names:
            raise UserError(f"{name}: column '{column}' is missing; there are: {', '.join(schema.names)}")
        if schema.names.count(column) > 1:
            raise UserError(f"{name}: column '{column}' is there more than once: rename one")
        if schema.field(column).type not in (pyarrow.string(), pyarrow.large_string()):
            raise UserError(f"{name}: column '{column}' holds {schema.field(column).type}, not text")


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


def json_value(text: str, *kinds: type) -> Any:
    """An object, or one of `kinds`; Unusable where it is broken, ambiguous, too deep, or Python's own."""
    try:
        value = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except Unusable:
        raise
    except RecursionError:
        raise Unusable("too_deep") from None
    except ValueError:
        raise Unusable("not_json") from None
    if not isinstance(value, kinds or dict):
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
