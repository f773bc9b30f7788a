"""The cache of what is fetched and what is made from it: outside the repository, published whole.

    blobs/DIGEST         a wheel or a hub file, named by its sha256 or git's blob sha1
    members/SHA256/FILE  copied out of the wheel of that sha256
    lists/, snapshots/   a hub repository at a commit: its file names and digests; links to blobs
    converted/           base models as safetensors
    kernels/NAME/        compiled code, and the assembly it was made of
    verified/PATH.json   digest, size and modification time of the cached file PATH when it was last hashed
    work/HASH/           what tasks on this node read of their object store (storage.py); goes with them
    parts/, locks/       downloads in progress; one lock for each path

A file whose size and modification time are in its record is trusted; any other is hashed when it is used.
Nothing is written where all that is asked for is there: a complete cache may be read-only, or another user's.
"""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from filelock import FileLock

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, published, sync, sync_folder

DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NO_SPACE = os.strerror(errno.ENOSPC)  # also in the words of what raises no OSError: safetensors, a compiler
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR)


def cache_dir() -> Path:
    """$STORYFORGE_CACHE, else storyforge/ under $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("STORYFORGE_CACHE"):
        return Path(own).absolute()
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storyforge"
    except RuntimeError:  # in a container whose user is in no list of users
        raise UserError("no home folder: set STORYFORGE_CACHE to a folder you may write to") from None


def is_inside(name: str) -> bool:
    """Whether a name, joined to a folder, stays in it."""
    return bool(name) and not (
        name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts
    )


def place(kind: str, name: str = "") -> Path:
    """The path of `name` in a folder of the cache, which is made; UserError where it would lie outside."""
    folder = cache_dir() / kind
    if name and not is_inside(name):
        raise UserError(f"{name!r}: leads out of {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unusable(error) from None
    return folder / name


def obtained(path: Path, make: Callable[[Path], None], digest: str | None = None) -> Path:
    """The verified file or folder at `path` in the cache; where there is none, `make` writes it.

    `make` gets another path, and may find there the part of a file it wrote before it was killed. One process
    makes, others wait. What is there but wrong is set aside as PATH.broken.
    """
    try:
        if not is_verified(path, digest):
            name = path.relative_to(cache_dir()).as_posix().replace("/", "--")
            with FileLock(place("locks", name)):
                if not is_verified(path, digest):
                    _set_aside(path)
                    _make(path, make, place("parts", name), digest)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) or NO_SPACE in str(error):
            raise unusable(error) from error
        raise
    return path


def _make(path: Path, make: Callable[[Path], None], part: Path, digest: str | None) -> None:
    """Let `make` write `part`, and publish it; an unfinished file is kept, to go on with, a folder is not."""
    _remove_folder(part)  # a killed process left it
    try:
        make(part)
        _publish(part, path, digest)
    finally:
        _remove_folder(part)


def _set_aside(path: Path) -> None:
    if path.exists():
        broken = path.with_name(f"{path.name}.broken")
        _remove_folder(broken)
        path.replace(broken)


def _remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def unusable(error: Exception) -> UserError:
    """The one line for a cache that cannot be written."""
    why = getattr(error, "strerror", None) or " ".join(str(error).split())
    remedy = "make room, or set STORYFORGE_CACHE to another disk"
    if getattr(error, "errno", None) in NO_RIGHT:
        remedy = "set STORYFORGE_CACHE to a folder you may write to"
    return UserError(f"{cache_dir()}: {NO_SPACE if NO_SPACE in why else why}: {remedy}")


def damaged(*, changed_only: bool = False) -> Iterator[tuple[Path, str]]:
    """Every cached file that does not have the digest it had when it was made, and why; hashes all of them.

    `changed_only` hashes those alone whose size or date is another. The record of a damaged file is removed,
    so that the next run that needs it fetches or makes it again.
    """
    root = cache_dir()
    blobs = {path: path.name for path in (root / "blobs").glob("*") if DIGEST.fullmatch(path.name)}
    records = (root / "verified").rglob("*.json")
    paths = {root / path.relative_to(root / "verified").with_suffix("") for path in records}
    for path in sorted(paths | blobs.keys()):
        wanted = blobs.get(path) or _record(path).get("digest") or ""
        if not path.is_file() or (changed_only and _record(path) == _observed(path, wanted)):
            continue
        try:
            found = digest(path, wanted)
        except OSError as error:
            yield path, f"cannot be read: {error.strerror}"
            continue
        if found != wanted:
            with suppress(OSError):  # another user's
                _record_path(path).unlink(missing_ok=True)
            yield path, f"its digest was {wanted or '(not recorded)'} and is {found}"


def is_verified(path: Path, wanted: str | None = None) -> bool:
    """Whether a file has the `wanted` digest, by default the recorded; of a folder, all files."""
    if path.is_dir():
        folder, files = _record_path(path).with_suffix(""), _files(path)
        recorded = {file.relative_to(folder).with_suffix("") for file in folder.rglob("*.json")}
        same = recorded == {file.relative_to(path) for file in files}
        return same and all(is_verified(file) for file in files)
    record = _record(path)
    wanted = wanted or record.get("digest")
    if not wanted or not path.is_file():
        return False
    if record != _observed(path, wanted):
        if digest(path, wanted) != wanted:
            return False
        with suppress(OSError, UserError):  # read-only, or another user's: hashed again next time
            _write_record(path, wanted)
    return True


def _publish(part: Path, path: Path, known: str | None) -> None:
    """Move what was made to its place, then record it; killed between the two, it is hashed or made again."""
    shutil.rmtree(_record_path(path).with_suffix(""), ignore_errors=True)
    digests = {file.relative_to(part): known or digest(file) for file in _files(part)}
    for file in _files(part):
        file.chmod(0o444)
    sync_folder(part)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)
    sync(path.parent)
    for name, found in digests.items():  # of a file, the one name is "."
        _write_record(path / name, found)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _record_path(path: Path) -> Path:
    record = cache_dir() / "verified" / path.relative_to(cache_dir())
    return record.with_name(f"{record.name}.json")


def _record(path: Path) -> dict:
    try:
        found = json.loads(_record_path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(path: Path, known: str) -> None:
    with published(_record_path(path)) as file:
        file.write(dumps(_observed(path, known)).encode() + b"\n")


def _observed(path: Path, known: str) -> dict[str, str | int]:
    status = path.stat()
    return {"digest": known, "size": status.st_size, "mtime_ns": status.st_mtime_ns}


def require_space(folder: Path, bytes_needed: int) -> None:
    """UserError where the disk cannot take that much."""
    free = shutil.disk_usage(folder).free
    if free < bytes_needed:
        raise UserError(
            f"{folder}: {bytes_needed:,} bytes are needed and {free:,} are free: "
            "make room, or set STORYFORGE_CACHE to a folder on a larger disk"
        )


def digest(path: Path, like: str = 64 * "0") -> str:
    """A file's digest in hex, of the kind that `like` is: 64 digits are sha256, 40 git's blob sha1."""
    start = b"blob %d\0" % path.stat().st_size

    def hasher():
        return hashlib.sha1(start, usedforsecurity=False) if len(like) == 40 else hashlib.sha256()

    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()
