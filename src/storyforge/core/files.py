"""Files that appear whole or not at all; canonical JSON and YAML in and out.

Every file is written beside its place, synced and renamed, so a reader never meets half of one.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, TypeVar, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent

from storyforge.core.errors import UserError

Row = TypeVar("Row")
MOST_ALIASES = 20


def dumps(value: Any) -> str:
    """Canonical JSON on one line: sorted keys, no spaces, no escapes beyond the necessary, no NaN."""
    value = asdict(value) if is_dataclass(value) else value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


@contextmanager
def published(path: Path) -> Iterator[BinaryIO]:
    """A file that appears at `path` whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: nothing was written there") from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def published_folder(path: Path) -> Iterator[Path]:
    """A directory that appears at `path` whole, in place of an older one, or not at all."""
    beside, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        yield beside
        sync_folder(beside)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(beside, path)
        sync(path.parent)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}: nothing was written there") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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


def read_jsonl(path: Path, kind: type[Row]) -> Iterator[Row]:
    """The rows of a file that `write_jsonl` wrote; UserError names the line that is not one."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: run `dvc repro`") from None
    with file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                made = kind(**row)
                for name, wanted in _types(kind).items():
                    if not isinstance(value := getattr(made, name), wanted):
                        raise TypeError(f"{name} is {type(value).__name__}, not {wanted}")
                if b"\\ud" in line:
                    json.dumps(row, ensure_ascii=False).encode()  # fails on half of a surrogate pair
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not a {kind.__name__}: {_brief(error)}") from None
            yield made


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
        if sum(isinstance(event, AliasEvent) for event in YAML(typ="safe").parse(text)) > MOST_ALIASES:
            raise UserError(f"{path}: cannot be read: it has more than {MOST_ALIASES} aliases (*name)")
        value = YAML(typ="safe").load(text)
        json.dumps(value, default=str, ensure_ascii=False).encode()  # fails on half of a surrogate pair
        return value
    except (OSError, YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read: {_brief(error)}") from None


def _brief(error: Exception) -> str:
    """On one line, no longer than one can read, and fit to be printed."""
    return " ".join(str(error)[:300].encode(errors="backslashreplace").decode().split())
