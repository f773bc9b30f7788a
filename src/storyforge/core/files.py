"""Files that appear whole or not at all; canonical JSON and YAML in and out.

Every file is written beside its place, synced and renamed, so a reader never meets half of one.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storyforge.core.errors import UserError

Row = TypeVar("Row")


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
                yield kind(**json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise UserError(f"{path}, line {number}: not a {kind.__name__}: {error}") from None


def write_json(path: Path, value: Any) -> None:
    """Indented JSON for people and `dvc metrics diff`, in the order given."""
    with published(path) as file:
        file.write(json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """UserError where the file is missing or broken."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}: run `dvc repro`") from None


def read_yaml(path: Path) -> Any:
    """UserError where the file is missing or is not YAML."""
    try:
        return YAML(typ="safe").load(path)
    except (OSError, YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
