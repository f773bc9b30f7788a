"""Files from outside, which may be broken or hostile → their records, and text or JSON of each."""

import codecs
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow
import pyarrow.compute
import pyarrow.parquet
from charset_normalizer import from_bytes

from storyforge.core.archives import members
from storyforge.core.errors import UserError

MAX_RECORD_BYTES = 16 << 20  # three times the whole of Shakespeare
MAX_BATCH_BYTES = 256 << 20  # of a table's texts at once; one text repeated makes gigabytes of a small file
MOST_TIMES = 200  # the size of its file that a table's text may have beyond that; compression of prose: 10
MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
# Of the hundred that charset-normalizer knows, those that people's files are in; more would only raise doubt.
CHARSETS = {
    "cp1252": "Windows-1252",
    "cp1250": "Windows-1250",
    "cp1251": "Windows-1251",
    "cp1253": "Windows-1253",
    "mac_roman": "Mac Roman",
    "koi8_r": "KOI8-R",
    "cp932": "Shift-JIS",
    "euc_jp": "EUC-JP",
    "gb18030": "GB 18030",
    "big5": "Big5",
    "cp949": "EUC-KR",
}
MIN_COHERENCE = 0.4  # of a text in one of its languages charset-normalizer gives 0.42 to 0.75
SAME_CHAOS = 0.02  # two readings this close are equally likely
# What writers in Western languages use of Windows-1252. A word of one language has letters of one row: Czech
# and Polish in Windows-1250, read so, mix them ("pøišel"), or have signs inside words ("by³").
ALPHABETS = (
    "àâæçéèêëîïôœùûüÿ",  # French
    "áéíóúüñ",  # Spanish
    "äöüßé",  # German
    "àèéìòù",  # Italian
    "áâãàçéêíóôõú",  # Portuguese
    "åäæéöø",  # Scandinavian
    "áäéèêëïóöü",  # Dutch
)
WESTERN = [frozenset(row + row.upper()) for row in ALPHABETS]
SIGNS = set("‘’‚“”„‹›«»–—…•·¡¿ªº²³£€¢¥§©®™°±×÷¼½¾\u00a0\u00ad")
MISPLACED = re.compile(r"[a-zA-ZÀ-ÿ][£¥¼¾²³ªº¡¿]|[£¥¼¾²³ªº][a-zA-ZÀ-ÿ]")
RARE, MOST = 0.02, 0.2  # of the letters: foreign words in English; more than any Western language has
OF_ONE = 0.9  # of the words with such letters, where these are not rare, belong to one language


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


def tables(files: Mapping[str, Path], columns: tuple[str, ...]) -> Iterator[Record]:
    """The rows of parquet files, undecoded: pyarrow would fail a thousand rows for one that is not UTF-8.

    UserError where a file is broken, a column is missing or holds something else than text.
    """
    for name, path in files.items():
        numbers, size = count(1), 0
        try:
            # with a buffer, or pyarrow holds a whole row group, which may be a whole file
            with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
                _require_columns(table.schema_arrow, columns, name)
                rows = max(1, min(1000, MAX_BATCH_BYTES // max(1, _longest_repeated(path, columns))))
                for batch in table.iter_batches(batch_size=rows, columns=list(columns), use_threads=False):
                    size += batch.nbytes
                    if size > max(MAX_BATCH_BYTES, MOST_TIMES * path.stat().st_size):
                        raise UserError(f"{name}: its text is over {MOST_TIMES} times as large as the file")
                    raw = (batch[column].cast(pyarrow.large_binary()).to_pylist() for column in columns)
                    for parts in zip(*raw, strict=True):
                        yield Record(name, next(numbers), None, parts)
        except (pyarrow.ArrowException, OSError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{name}: cannot be read as parquet: {why}") from None


def _longest_repeated(path: Path, columns: tuple[str, ...]) -> int:
    """Bytes of the longest text in the file's dictionaries, to which rows refer by number."""
    longest = 0
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False, read_dictionary=columns) as table:
        for group in range(table.num_row_groups):
            for batch in islice(table.iter_batches(1, [group], list(columns), use_threads=False), 1):
                for column in batch.columns:
                    lengths = pyarrow.compute.binary_length(column.dictionary)
                    longest = max(longest, pyarrow.compute.max(lengths).as_py() or 0)
    return longest


def _require_columns(schema: pyarrow.Schema, columns: tuple[str, ...], name: str) -> None:
    for column in columns:
        if column not in schema.names:
            raise UserError(f"{name}: column '{column}' is missing; there are: {', '.join(schema.names)}")
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


def guessed(data: bytes) -> str:
    """The text of one's own file: Unicode by its mark, UTF-8, or another encoding where no doubt is left.

    Unusable where there is doubt; its detail is what the encoding looks like.
    """
    for mark, encoding in MARKS.items():
        if data.startswith(mark):
            try:
                return data.removeprefix(mark).decode(encoding)
            except UnicodeDecodeError:
                raise Unusable("damaged", f"its mark says {encoding.upper()}") from None
    try:
        return decoded(data)
    except Unusable as reason:
        if str(reason) != "invalid_utf8" or b"\0" in data:
            raise
    if (text := _western(data)) is not None:
        return text
    found = from_bytes(data, cp_isolation=list(CHARSETS))
    likely = [match for match in found if match.coherence >= MIN_COHERENCE]
    if not likely:
        raise Unusable("invalid_utf8")
    least = min(match.chaos for match in likely)
    texts = {str(match): match for match in likely if match.chaos <= least + SAME_CHAOS}
    ranked = sorted(texts, key=_plausible, reverse=True)
    best = texts[ranked[0]]
    if len(ranked) > 1 and _plausible(ranked[0]) == _plausible(ranked[1]):
        named = next(name for charset, name in CHARSETS.items() if charset in best.could_be_from_charset)
        raise Unusable("invalid_utf8", f"looks like {named}")
    return ranked[0]


def _western(data: bytes) -> str | None:
    """The text in Windows-1252 where it is like that of a Western writer, and not more so in Mac Roman."""
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        return None
    beyond = Counter(letter for letter in text if letter > "\x7f")
    letters = set(beyond) - SIGNS
    if not letters <= frozenset().union(*WESTERN) or MISPLACED.search(text):
        return None
    words = [set(word) - SIGNS for word in re.findall(r"[^\W\d_]*[À-ÿœŒŸ][^\W\d_]*", text)]
    words = [{letter for letter in word if letter > "\x7f"} for word in words]
    share = sum(beyond[letter] for letter in letters) / max(1, sum(map(str.isalpha, text)))
    of_one = max(sum(word <= alphabet for word in words) for alphabet in WESTERN)
    mixed = any(not any(word <= alphabet for alphabet in WESTERN) for word in words)
    if mixed or share > MOST or (share > RARE and of_one < OF_ONE * len(words)):
        return None
    return text if _plausible(text) >= _plausible(data.decode("mac_roman")) else None


def _plausible(text: str) -> int:
    """Quotation marks, dashes and dots, less capitals after small letters: “a café” beats Òa cafÈÓ."""
    marks = sum(unicodedata.category(letter) in ("Pi", "Pf", "Pd") or letter == "…" for letter in text)
    pairs = zip(text, text[1:], strict=False)
    return marks - sum(first.islower() and second.isupper() and second > "\x7f" for first, second in pairs)


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
