"""What an export wrote, recorded in it: only a folder that is unchanged since then may be replaced."""

import json
import os
from pathlib import Path

from storyforge.core.cache import digest
from storyforge.core.errors import UserError

MANIFEST = "manifest.json"  # {name: sha256} of every other file: a folder that still matches may be replaced


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of each file but the manifest; a link is not followed, and has its target instead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[path.relative_to(folder).as_posix()] = f"link to {path.readlink()}"
        elif not path.is_dir() and path != folder / MANIFEST:
            found[path.relative_to(folder).as_posix()] = digest(path)
    return found


def require_ours(folder: Path) -> None:
    """UserError where the folder holds anything that no export wrote, or that was changed since."""
    if not os.path.lexists(folder):
        return
    if folder.is_symlink() or not folder.is_dir():
        raise UserError(f"{folder}: is not a folder: choose another --to")
    try:
        written = dict(json.loads((folder / MANIFEST).read_bytes()))
    except (OSError, ValueError, TypeError):
        written = {}
    if not written and (foreign := next(iter(sorted(folder.iterdir())), None)):
        raise UserError(f"{foreign}: no export of ours is recorded in {folder}: choose another --to")
    for name, found in digests(folder).items():
        if written.get(name) != found:
            why = "was changed since the export" if name in written else "was not written by an export"
            raise UserError(f"{folder / name}: {why}: choose another --to, or move the file away")
