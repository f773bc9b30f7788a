"""Outputs from the remote: fetched, compared with what was recorded, then checked out.

`dvc pull` trusts what a remote says: it takes an object without hashing it, and writes a folder's files where
the remote's list of them points, outside the folder too. Here an object enters DVC's cache only with the hash
that was asked for, and the list of a folder before any file of it.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from storyforge.core.errors import UserError

MD5 = re.compile(r"[0-9a-f]{32}")
STAGING = Path(".dvc/tmp/pull")
MOST_BYTES, MARGIN = 1 << 40, 1 << 20  # of an output whose size was not recorded; more than recorded
BUILD = "`dvc repro` builds what stages make"


def pull(
    outputs: Annotated[
        list[Path] | None,
        typer.Argument(resolve_path=True, help="Which outputs.", show_default="all"),
    ] = None,
) -> None:
    """Bring outputs from the DVC remote, verified.

    Instead of `dvc pull`, which does not hash what it gets: where others can write to the remote, it puts
    their files anywhere. Here nothing is checked out, status 1, where an object has another hash than was
    recorded or a path lies outside its output's folder. What the remote lacks is named, and left to
    `dvc repro`; status 1 if it has nothing.

    \b
    Examples:
      storyforge pull
      storyforge pull models/tuned
    """
    from storyforge.commands.repository import LOCK, locked_stages

    if LOCK.exists():
        locked_stages()  # has its own words for a broken file
    from dvc.repo import Repo, lock_repo  # half a second

    with one_line("DVC"), Repo() as repo, lock_repo(repo):
        recorded = [out for out in repo.index.outs if out.use_cache and out.hash_info]
        known = {Path(out.fs_path): out for out in recorded}
        if unknown := sorted(set(outputs or []) - known.keys()):
            raise UserError(f"{unknown[0]}: no recorded output: choose of {', '.join(map(str, recorded))}")
        wanted = [known[path] for path in outputs or []] or recorded
        if not wanted:
            raise UserError(f"no run has been recorded: {BUILD}")
        try:
            whole = [out for out in wanted if complete(repo, out)]
        finally:
            shutil.rmtree(STAGING, ignore_errors=True)
        repo.drop_data_index()  # what an earlier `dvc fetch` has read, unverified
        if whole:
            repo.checkout([out.fs_path for out in whole])
    absent = ", ".join(str(out) for out in wanted if out not in whole)
    missing = f"neither the cache nor the remote has {absent}: {BUILD}"
    if not whole:
        raise UserError(missing)
    typer.echo(f"verified and checked out: {', '.join(map(str, whole))}")
    if absent:
        typer.echo(missing)


@contextmanager
def one_line(where: str, remedy: str = "") -> Iterator[None]:
    """Any error of DVC, of a remote's library or of the network as a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # each kind of remote has its own
        words = " ".join(str(error).split()) or type(error).__name__
        if "--force" in words:  # DVC's checkout has that option
            remedy = ": the cache has them now: `dvc checkout --force OUTPUT` replaces what you changed"
            words = words.partition(" Use ")[0]
        raise UserError(f"{where}: {words}{remedy}") from None


def complete(repo: Any, out: Any) -> bool:
    """Whether the cache has all of the output, with what the remote has; UserError on a wrong object."""
    root = out.hash_info.value
    if not brought(repo, out, {root: str(out)}):
        return False
    return not root.endswith(".dir") or brought(repo, out, files_of(repo, out))


def files_of(repo: Any, out: Any) -> dict[str, str]:
    """Hash → path of each file of a folder; UserError where one would lie outside it."""
    from storyforge.core.cache import is_inside  # brings ruamel, which help does without

    files, folder = {}, Path(out.fs_path)
    for row in json.loads(Path(repo.cache.local.oid_to_path(out.hash_info.value)).read_bytes()):
        name, md5 = row["relpath"], row["md5"]
        outside = not is_inside(name) or {"", "."} & {*name.split("/")}
        if outside or not (folder / name).parent.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{out}: its list names {name!r}, outside the folder: nothing was checked out")
        if not MD5.fullmatch(md5):
            raise UserError(f"{out}: its list has {md5!r} for a hash: nothing was checked out")
        files[md5] = f"{out}/{name}"
    return files


def brought(repo: Any, out: Any, objects: dict[str, str]) -> bool:
    """Whether the cache has all objects, given as hash → path, now; UserError on one with other bytes."""
    cache = repo.cache.local
    needed = {md5: path for md5, path in objects.items() if not intact(cache.oid_to_path(md5), md5)}
    if not needed:
        return True
    from dvc.fs import generic, localfs
    from dvc.fs.callbacks import TqdmCallback

    with one_line("no remote", f": without one, {BUILD}"):
        remote = repo.cloud.get_remote(out.remote, "pull")
    advice = f": credentials go into `dvc remote modify --local {remote.name} …`; without them, {BUILD}"
    with one_line(f"remote {remote.name} ({remote.path})", advice):
        if not remote.fs.exists(remote.path):
            raise UserError(f"remote {remote.name} ({remote.path}) is not there, or is empty: {BUILD}")
        there = {md5: remote.odb.oid_to_path(md5) for md5 in needed}
        found = remote.fs.exists(list(there.values()))
        there = {md5: path for (md5, path), is_there in zip(there.items(), found, strict=True) if is_there}
        if not there:
            return False
        for md5, path in there.items():  # a pipe would be read for ever, a device until the disk is full
            about = remote.fs.info(path)
            if about.get("type") != "file" or (about.get("size") or 0) > largest(out):
                raise UserError(f"remote {remote.name}: {path} is no file as large as {needed[md5]}: {BUILD}")
        shutil.rmtree(STAGING, ignore_errors=True)
        STAGING.mkdir(parents=True)
        staged = [str(STAGING.absolute() / md5) for md5 in there]
        with TqdmCallback(desc=str(out), unit="file", size=len(there)) as bar:
            generic.copy(remote.fs, list(there.values()), localfs, staged, callback=bar)
    for md5, path in zip(there, staged, strict=True):
        if not intact(path, md5):
            what = "has other bytes than were recorded: nothing was checked out"
            raise UserError(f"remote {remote.name}: {needed[md5]} {what}: delete {there[md5]}; {BUILD}")
        Path(cache.oid_to_path(md5)).unlink(missing_ok=True)
    cache.add(staged, localfs, list(there), hardlink=True)
    return len(there) == len(needed)


def largest(out: Any) -> int:
    """Bytes beyond which an object is not even fetched; its hash tells whether it is the right one."""
    meta = out.meta
    return (meta.size or 0) + 1000 * (meta.nfiles or 1) + MARGIN if meta else MOST_BYTES


def intact(path: str, md5: str) -> bool:
    """Whether the file has this hash."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest() == md5.removesuffix(".dir")
    except OSError:
        return False
