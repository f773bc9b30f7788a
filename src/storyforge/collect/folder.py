"""One's own folder: which of its files are read, and the records in them.

A `.zip` is read as the folder it was made of. Every file is read, or left out and counted.
"""

import codecs
import csv
import io
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from storyforge.collect import documents
from storyforge.collect.encodings import guessed
from storyforge.collect.order import natural
from storyforge.collect.reading import MAX_RECORD_BYTES, Record, Unusable, json_value, lines, suffix
from storyforge.collect.rows import listed
from storyforge.collect.zips import unsafe
from storyforge.core.cache import is_inside
from storyforge.core.errors import UserError
from storyforge.core.text import printable

TEXTS = (".md", ".markdown", ".txt", ".text", ".fountain")
LINES = (".jsonl", ".ndjson")
ROWS = (".json", ".csv")
READ = (*TEXTS, *documents.FORMATS, *LINES, *ROWS, ".zip")
BUNDLES = (".scriv", ".pages", ".rtfd")  # folders that a Mac shows as one file
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg", ".css")  # what a saved web page brings along
MAX_FILE_BYTES = 128 << 20  # of a .json or .csv file, and of a file in a .zip, which are held whole
csv.field_size_limit(MAX_RECORD_BYTES)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a file in a .zip."""

    path: Path
    member: str | None = None
    unusable: Unusable | None = None

    def open(self) -> BinaryIO:
        try:
            if self.member is None:
                return self.path.open("rb")
            with zipfile.ZipFile(self.path) as zipped:
                if zipped.getinfo(self.member).file_size > MAX_FILE_BYTES:
                    raise Unusable("too_long")
                return io.BytesIO(zipped.read(self.member))
        except Unusable:
            raise
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read: {error.strerror}") from None
        except Exception:  # zipfile raises many kinds on damaged bytes
            raise Unusable("damaged", "not a whole file") from None


@dataclass
class Listing:
    """What is in a folder: files to read by name, and the rest counted."""

    files: dict[str, Entry] = field(default_factory=dict)
    not_read: Counter[str] = field(default_factory=Counter)  # by suffix, or "link to a folder"
    left_out: Counter[str] = field(default_factory=Counter)  # hidden, lock and README files, pictures
    bundles: set[str] = field(default_factory=set)

    def add(self, name: str, entry: Entry) -> None:
        path = PurePosixPath(name)
        kind = path.suffix.lower()
        if path.name == ".gitkeep":
            return  # keeps the folder in git
        if any(part.startswith((".", "__MACOSX")) for part in path.parts):
            self.left_out["hidden"] += 1
        elif bundle := next((name for name in map(str, path.parents) if name.lower().endswith(BUNDLES)), ""):
            self.not_read[PurePosixPath(bundle).suffix.lower()] += bundle not in self.bundles
            self.bundles.add(bundle)
        elif path.name.startswith("~$"):
            self.left_out["lock"] += 1
        elif path.stem.lower() == "readme":
            self.left_out["readme"] += 1
        elif kind in PICTURES:
            self.left_out["picture"] += 1
        elif kind not in READ or (kind == ".zip" and entry.member):
            self.not_read[kind or "no suffix"] += 1
        elif kind == ".zip":
            self._add_members(name, entry.path)
        else:
            self.files[name] = entry

    def _add_members(self, name: str, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as zipped:
                infos = [info for info in zipped.infolist() if not info.is_dir()]
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from None
        except Exception:  # zipfile raises many kinds on damaged bytes
            trouble = Unusable("damaged", "not a whole archive, or none")
            self.files[name] = Entry(path, unusable=trouble)
            return
        names = [info.filename for info in infos]
        if (trouble := _unlistable(names) or unsafe(infos)) is not None:
            self.files[name] = Entry(path, unusable=trouble)
            return
        # the folder that an archiver packed is the archive itself, no sub-folder of it
        tops = {each.partition("/")[0] for each in names if not each.startswith("__MACOSX/")}
        within = f"{min(tops)}/" if len(tops) == 1 and all("/" in each for each in names) else ""
        for member in sorted(names):
            self.add(f"{name}/{member.removeprefix(within)}", Entry(path, member))


def _unlistable(names: list[str]) -> Unusable | None:
    """Why an archive is no folder: it is empty, or one that no archiver makes."""
    if not names:
        return Unusable("empty_archive")
    if len(names) != len(set(names)) or not all(map(is_inside, names)):
        return Unusable("damaged", "it holds a name twice, or one that leads out of it")
    return None


def listing(folder: Path) -> Listing:
    """The folder's files in the order of reading; no links to folders, which DVC does not follow either."""
    found = Listing()
    for path in sorted(folder.rglob("*")):
        name = printable(path.relative_to(folder).as_posix())
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_symlink() and not path.exists() and not hidden:
            raise UserError(f"{path}: a link to a missing file: restore the file or remove the link")
        if path.is_symlink() and path.is_dir() and not hidden:
            found.not_read[f"link to a folder ({name})"] += 1
        elif path.is_file() or (path.is_symlink() and not path.exists()):
            found.add(name, Entry(path))
    if not found.files:
        said = (
            unread(found.not_read)
            or "put .docx, .odt, .rtf, .epub, .html, .md, .txt, .jsonl or .csv files there"
        )
        raise UserError(
            f"{folder}: no story: {said} (and run `make stories`, for experiments with --temp or --queue), "
            "or take collect.folder out of params.yaml"
        )
    found.files = dict(sorted(found.files.items(), key=lambda item: natural(item[0])))
    return found


def unread(not_read: Counter[str]) -> str:
    """How many files of which kinds were not read, and what to do; "" where there are none."""
    if not not_read:
        return ""
    kinds = ", ".join(
        f"{kind} {count}" for kind, count in sorted(not_read.items(), key=lambda it: (-it[1], it[0]))
    )
    many, were = ("file", "was") if not_read.total() == 1 else ("files", "were")
    links = any(kind.startswith("link") for kind in not_read)
    remedies = ["unpack a .zip that is inside another"] if ".zip" in not_read else []
    remedies += ["copy the linked folder itself"] if links else []
    if any(kind != ".zip" and not kind.startswith("link") for kind in not_read):
        saved = "save them as .docx, .odt or .txt" + (" (a PDF as text)" if ".pdf" in not_read else "")
        remedies.insert(0, saved + (" (compile a Scrivener project)" if ".scriv" in not_read else ""))
    return f"{not_read.total()} {many} {were} not read: {kinds}: {'; '.join(remedies)}"


def require_reader(files: dict[str, Entry]) -> str | None:
    """Where pandoc is, None where no file needs it; UserError where it is missing."""
    kinds = Counter(suffix(name) for name, entry in files.items() if not entry.unusable)
    needed = {kind: kinds[kind] for kind in documents.FORMATS if kinds[kind]}
    if not needed:
        return None
    if (program := documents.pandoc()) is None:
        said = ", ".join(f"{kind} {count}" for kind, count in needed.items())
        raise UserError(
            f"files that need pandoc: {said}: "
            "`.venv/bin/python -m pip install -r requirements-documents.txt` reads them"
        )
    return program


def records(files: dict[str, Entry]) -> Iterator[Record]:
    """What is in each file: a text, a document's text, lines, or rows as lines of JSON; never nothing."""
    program = require_reader(files)
    for name, entry in files.items():
        empty = True
        for record in _records(name, entry, program):
            empty = False
            yield record
        if empty:
            yield Record(name, 1, 0, (b"",), unusable=Unusable("empty_text"))


def _records(name: str, entry: Entry, program: str | None) -> Iterator[Record]:
    kind = suffix(name)
    data = b""
    try:
        if entry.unusable:
            raise entry.unusable
        with entry.open() as file:
            if kind in LINES:
                yield from line_rows(name, file)
                return
            limit = MAX_RECORD_BYTES if kind in TEXTS else MAX_FILE_BYTES
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Unusable("too_long")
        if not data:
            raise Unusable("empty_text")
        if kind in documents.FORMATS:
            text, about = documents.converted(data, kind, program)
            yield Record(name, 1, 0, (text,), about)
        elif kind in ROWS:
            yield from json_rows(name, data) if kind == ".json" else csv_rows(name, data)
        else:
            yield Record(name, 1, 0, (guessed(data).encode(),))
    except Unusable as trouble:
        yield Record(name, 1, 0, (data[: MAX_RECORD_BYTES + 1],), unusable=trouble)


def line_rows(name: str, file: BinaryIO) -> Iterator[Record]:
    """Each line; a file in UTF-16, as Windows' shell writes it, is recoded whole."""
    if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        file.seek(0)
        if len(data := file.read(MAX_FILE_BYTES + 1)) > MAX_FILE_BYTES:
            raise Unusable("too_long")
        file = io.BytesIO(guessed(data).encode())
    file.seek(0)
    yield from (Record(name, number, at, (line,)) for number, at, line in lines(file))


def json_rows(name: str, data: bytes) -> Iterator[Record]:
    """Each row of a list, or the one there is, as a line of JSON."""
    for number, row in enumerate(listed(json_value(guessed(data), dict, list)), 1):
        yield Record(name, number, None, (json.dumps(row).encode(),))


def csv_rows(name: str, data: bytes) -> Iterator[Record]:
    """Each row under the header's keys; of commas, semicolons and tabs the header's most frequent divides."""
    text = guessed(data)
    if "\0" in text:
        raise Unusable("nul")
    header = text.split("\n", 1)[0]
    delimiter = max(",;\t", key=header.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        keys = [key.strip() for key in next(rows, [])]
        if len(set(keys)) < len(keys):
            raise Unusable("duplicate_key", "its first line names a column twice")
        for number, row in enumerate(rows, 2):
            if not row:
                continue
            if len(row) > len(keys):
                raise Unusable("not_csv", f"row {number} has {len(row)} columns, its first line {len(keys)}")
            line = json.dumps(dict(zip(keys, row, strict=False))).encode()
            yield Record(name, number, None, (line,))
    except csv.Error as error:
        raise Unusable("not_csv", str(error)) from None
