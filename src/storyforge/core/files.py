"""Files that appear whole or not at all; canonical JSON and YAML in and out.

Every file is written beside its place, synced and renamed, so a reader never meets half of one.
"""

import errno
import fcntl
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import cache
from glob import escape
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO, NoReturn, TypeVar, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from storyforge.core.errors import UserError

Row = TypeVar("Row")
MOST_ALIASES = 20


def dumps(value: Any) -> str:
    """Canonical JSON on one line: sorted keys, no spaces, no escapes beyond the necessary, no NaN."""
    spaces = {"separators": (",", ":"), "default": _fields}
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False, **spaces)


def _fields(value: Any) -> dict[str, Any]:
    """Of a record, not copied as `asdict` does."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


@contextmanager
def published(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, or not at all."""
    with _workplace(path) as place:
        with (place / "new").open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(place / "new", path)
        sync(path.parent)


@contextmanager
def published_folder(path: Path) -> Iterator[Path]:
    """A directory that appears at `path` whole, in place of an older one, or not at all.

    Of several writers the last one to finish wins; their files never mix.
    """
    with _workplace(path) as place:
        (place / "new").mkdir()
        yield place / "new"
        sync_folder(place / "new")
        for number in count():  # again where another writer was faster
            try:
                os.replace(place / "new", path)
                break
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            with suppress(FileNotFoundError):
                os.replace(path, place / f"old{number}")
        sync(path.parent)


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside `path` for one writer alone, gone afterwards. What killed writers left goes first."""
    place = lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _recover(path)
        while lock is None or not place.exists():  # _recover of another writer may come before the lock
            place = Path(mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
            with suppress(FileNotFoundError):
                lock = (place / "lock").open("wb")
                fcntl.flock(lock, fcntl.LOCK_EX)
        yield place
    except OSError as error:
        more = ": make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise UserError(f"{path}: {error.strerror or error}: nothing was written there{more}") from error
    finally:
        if place:
            _discard(place)
        if lock:
            lock.close()


def _recover(path: Path) -> None:
    """Remove the folders of killed writers: a lock dies with its owner. An old result in one comes back."""
    for place in path.parent.glob(f".{escape(path.name)}.*.part"):
        try:
            lock = (place / "lock").open("rb+")
        except OSError:  # killed before it had a lock; or not ours
            with suppress(OSError):
                place.rmdir()
            continue
        with lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            old = sorted(place.glob("old*"))
            if old and not os.path.lexists(path):
                os.replace(old[-1], path)
            _discard(place)


def _discard(place: Path) -> None:
    """The lock goes last: a folder without one is not known as ours."""
    for each in place.glob("*"):
        if each.name == "new" and each.is_file():
            each.unlink()
        elif each.name != "lock":
            shutil.rmtree(each, ignore_errors=True)
    shutil.rmtree(place, ignore_errors=True)


def sync(path: Path) -> None:
    """Put a file's bytes, or the names in a directory, on the disk: power may fail after this."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """The same of all that is in it: libraries that write files do not."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def write_jsonl(path: Path, rows: Iterable[Any]) -> int:
    """One canonical line a row, as bytes that depend on the rows alone; returns how many."""
    count = 0
    with published(path) as file:
        for row in rows:
            file.write(dumps(row).encode() + b"\n")
            count += 1
    return count


def read_jsonl(path: Path, kind: type[Row], start: int = 0, end: float = math.inf) -> Iterator[Row]:
    """The rows of a file that `write_jsonl` wrote; UserError names the line that is not one.

    Those of the lines that begin from byte `start`, where one does, up to byte `end`.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: run `dvc repro`") from None
    with file:
        file.seek(start)
        at = start
        for number, line in enumerate(file, 1):
            if at >= end:
                return
            at += len(line)
            try:
                row = json.loads(line)
                made = kind(**row)
                for name, wanted in _types(kind).items():
                    if not isinstance(value := getattr(made, name), wanted):
                        raise TypeError(f"{name} is {type(value).__name__}, not {wanted}")
                if b"\\ud" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # fails on half of a surrogate pair
            except (ValueError, TypeError, RecursionError) as error:
                number += _lines_before(path, start)
                raise UserError(f"{path}, line {number}: not a {kind.__name__}: {_brief(error)}") from None
            yield made


def _lines_before(path: Path, end: int) -> int:
    lines = 0
    with path.open("rb") as file:
        while block := file.read(min(1 << 20, end - file.tell())):
            lines += block.count(b"\n")
    return lines


@cache
def _types(kind: type) -> dict[str, Any]:
    """Of a record's fields; `dict` for a dict of anything."""
    return {
        name: get_origin(hint) if get_origin(hint) is dict else hint
        for name, hint in get_type_hints(kind).items()
    }


def write_json(path: Path, value: Any) -> None:
    """Indented JSON for people and `dvc metrics diff`, in the order given."""
    with published(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """UserError where the file is missing or broken, and where a key that is asked for is not in it."""

    class Object(dict):
        def __missing__(self, key: str) -> NoReturn:
            raise UserError(f"{path}: there is no {key!r} where it should be: run `dvc repro`")

    try:
        return json.loads(path.read_bytes(), object_hook=Object)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_brief(error)}: run `dvc repro`") from None


def read_yaml(path: Path) -> Any:
    """YAML 1.2, where 2e-05 is a number; UserError where the file is missing or is not YAML.

    Values are as few as they look: a file of more aliases could stand for more values than fit in memory.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if text.count("*") > MOST_ALIASES and _aliases(text) > MOST_ALIASES:  # few files are parsed twice
            raise UserError(f"{path}: cannot be read: it has more than {MOST_ALIASES} aliases (*name)")
        return _whole(YAML(typ="safe").load(text), f"{path}: cannot be read")
    except (OSError, YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_brief(error)}") from None


def _aliases(text: str) -> int:
    return sum(isinstance(event, AliasEvent) for event in YAML(typ="safe").parse(text))


def whole(text: str, where: str) -> str:
    r"""The text with surrogate pairs, as JSON and YAML may spell them (\ud83d\ude00), joined to characters.

    UserError, which begins with `where`, for half a pair: no tokenizer and no file takes it.
    """
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        place = error.start // 2 + 1
        raise UserError(
            f"{where}: character {place} is half a character or not UTF-8: write it anew"
        ) from None


def _whole(value: Any, where: str) -> Any:
    """The same with `whole` texts; `where` grows by keys and numbers."""
    if isinstance(value, str):
        return whole(value, where)
    if isinstance(value, list):
        return [_whole(part, f"{where}: {number}") for number, part in enumerate(value, 1)]
    if isinstance(value, dict):
        return {_whole(key, where): _whole(part, f"{where}: {key}") for key, part in value.items()}
    return value


def _brief(error: Exception) -> str:
    """On one line, no longer than one can read, and fit to be printed."""
    return " ".join(str(error)[:300].encode(errors="backslashreplace").decode().split())
