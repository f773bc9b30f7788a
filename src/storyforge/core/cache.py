"""The cache of everything fetched: outside the repository, addressed by content, published whole."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from storyforge.core.errors import UserError
from storyforge.core.files import sync


def cache_dir() -> Path:
    """$STORYFORGE_CACHE, else storyforge/ under $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("STORYFORGE_CACHE"):
        return Path(own).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "storyforge"


def blob(name: str, is_whole: Callable[[Path], bool], bring: Callable[[Path], None]) -> Path:
    """The cached file of that digest; `bring` leaves a missing one, verified, at the path it is given.

    One process brings, others wait. A file that is not whole is set aside.
    """
    path = place("blobs", name)
    try:
        if not is_whole(path):
            with place("locks", name).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # goes with the process, whatever ends it
                if not is_whole(path):
                    _set_aside(path)
                    part = place("parts", name)
                    bring(part)
                    _publish(part, path)
    except OSError as error:
        raise UserError(
            f"{cache_dir()}: {error.strerror or error}: make room, or set STORYFORGE_CACHE to another disk"
        ) from error
    return path


def link(path: Path, target: Path) -> None:
    """A relative link at `path`, where there is not already this one."""
    relative = os.path.relpath(target, path.parent)
    if path.is_symlink() and os.readlink(path) == relative:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        beside.symlink_to(relative)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: set STORYFORGE_CACHE to another disk") from None


def place(kind: str, name: str = "") -> Path:
    """Where the cache keeps it; the folder is made."""
    folder = cache_dir() / kind
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror}: set STORYFORGE_CACHE to a folder you may write to"
        ) from None
    return folder / name


def _set_aside(path: Path) -> None:
    if path.exists():
        path.replace(path.with_suffix(".broken"))


def _publish(part: Path, path: Path) -> None:
    sync(part)
    part.chmod(0o444)
    part.replace(path)
    sync(path.parent)


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

    def hasher():
        return (
            hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        )

    size = path.stat().st_size
    with path.open("rb") as file:
        return hashlib.file_digest(file, hasher).hexdigest()


def damaged() -> Iterator[tuple[Path, str]]:
    """Every cached file that is not what was recorded when it was verified, and why; hashes all of them."""
    yield from ()
