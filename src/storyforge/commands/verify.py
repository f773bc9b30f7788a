"""Hash every output and every cached file again.

DVC judges a cached file by its mode and an output by its date, and does not notice a flipped bit.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shlex import quote

import typer
from tqdm import tqdm

from storyforge.core import cache as assets
from storyforge.commands.repository import HASH, Output, output, outputs
from storyforge.commands.terminal import say
from storyforge.core.cache import is_inside
from storyforge.core.errors import UserError

# Never `dvc pull`: where that fails, it deletes the output it could not bring. Nothing is deleted here but
# objects of DVC's cache, by their hash: DVC itself replaces a file once its date is another.
# `storyforge pull` fills the cache, verified, even where it leaves a file of the workspace alone.
FETCH = "storyforge pull {out}; dvc checkout --force {out} || dvc repro {stage}"
CHECKOUT = "touch -c {path} && dvc checkout --force {out}"
RESTORE = "touch -c {path}; storyforge pull {out}; dvc checkout --force {out} || dvc repro {stage}"
FROM_GIT = "git checkout -- {out} || dvc repro {stage}"
COPY = "mkdir -p {shelf} && cp {path} {kept}"
COMMIT = "dvc commit {stage}"  # writes the list of a folder's files


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what dvc.lock says."""

    path: Path
    what: str
    remedy: str  # a command, or two


def run() -> bool:
    """Hash and print; True if every file is as recorded."""
    found = verify(cache_dir())
    for fault in found.faults:
        say(str(fault.path), end="", fg="red")
        say(f": {fault.what}: {fault.remedy}")
    read = f"{found.files:,} files, {found.bytes / (1 << 20):,.0f} MiB"
    wrong = f"{len(found.faults):,} not as recorded, of {read}: repair from the top, then verify again"
    typer.echo(wrong if found.faults else f"{read}: all as dvc.lock says")
    return not found.faults


def cache_dir() -> Path:
    """As DVC has it from all its configuration files; relative where it lies in the repository."""
    path = Path(output("dvc", "cache", "dir"))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def verify(cache: Path) -> "Hashes":
    """All outputs of dvc.lock, their objects in DVC's cache, and the cache of fetched files."""
    wanted = outputs()
    for out in wanted:
        _require_inside(str(out.path), out.md5, "dvc.lock")
    total = sum(out.size * (1 + out.cached) for out in wanted)
    with tqdm(total=total, desc="verify", unit="B", unit_scale=True, disable=None, leave=False) as bar:
        hashes = Hashes(cache, bar)
        kept = [out for out in wanted if out.cached]
        if kept and not any(out.path.exists() or hashes.object(out.md5).exists() for out in kept):
            raise UserError("no data of dvc.lock is in this clone: run `dvc repro`")
        faults = [fault for out in wanted for fault in _faults(out, hashes)]
    try:
        faults += [Fault(path, why, f"rm -f {quote(str(path))}") for path, why in assets.damaged()]
    except OSError as error:
        raise UserError(f"{error.filename or assets.cache_dir()}: cannot be read: {error.strerror}") from None
    hashes.faults = list(dict.fromkeys(faults))
    return hashes


class Hashes(dict[Path, str | None]):
    """md5 by path, as DVC has it for a file or a folder; each file is read once. None: nothing is there."""

    faults: list[Fault]

    def __init__(self, cache: Path, bar: tqdm):
        from dvc.fs import localfs  # half a second
        from dvc.ignore import DvcIgnoreFilter

        self.cache, self.bar = cache, bar
        self.find = partial(DvcIgnoreFilter(localfs, str(Path.cwd())).find, localfs)
        self.files, self.bytes = 0, 0

    def __missing__(self, path: Path) -> str | None:
        self[path] = None
        if path.is_dir():
            rows = [{"md5": self[path / name], "relpath": name} for name in self.names(path)]
            listed = json.dumps(rows, sort_keys=True).encode()
            self[path] = hashlib.md5(listed, usedforsecurity=False).hexdigest() + ".dir"
        elif path.is_file():
            try:
                with path.open("rb") as file:
                    self[path] = hashlib.file_digest(file, "md5").hexdigest()
                    size = file.tell()
            except OSError as error:
                raise UserError(f"{path}: cannot be read: {error.strerror}") from None
            self.bar.update(size)
            self.files, self.bytes = self.files + 1, self.bytes + size
        return self[path]

    def names(self, folder: Path) -> list[str]:
        """Relative paths of all files in it that .dvcignore does not exclude."""
        found = self.find(str(folder.absolute()))
        return sorted(Path(path).relative_to(folder.absolute()).as_posix() for path in found)

    def object(self, md5: str) -> Path:
        """Where DVC's cache keeps the file, or the list of a folder's files."""
        return self.cache / "files" / "md5" / md5[:2] / md5[2:]


def _faults(out: Output, hashes: Hashes) -> Iterator[Fault]:
    listed = hashes.object(out.md5)
    if not (out.is_folder and out.cached and hashes[listed] == out.md5.removesuffix(".dir")):
        yield from _pair(out, out.path, out.md5, hashes)  # a folder without its list is hashed as a whole
        return
    listing = {entry["relpath"]: entry["md5"] for entry in json.loads(listed.read_bytes())}
    for name, md5 in listing.items():
        _require_inside(name, md5, f"{listed}, the list of {out.path}")
    if not out.path.is_dir():
        yield Fault(out.path, "missing", f"dvc checkout --force {quote(str(out.path))}")
    for name in sorted(set(hashes.names(out.path)) - listing.keys()):  # first: DVC's checkout deletes them
        yield Fault(out.path / name, "not in dvc.lock", f"rm -f {quote(str(out.path / name))}")
    for name, md5 in listing.items():
        yield from _pair(out, out.path / name, md5, hashes)


def _require_inside(name: str, md5: str, where: str) -> None:
    """UserError for what a hostile lock file or list would have DVC write, or a remedy delete, elsewhere."""
    if not is_inside(name) or not HASH.fullmatch(str(md5)):
        raise UserError(f"{where}: {name!r} leads out of its folder, or {md5!r:.80} is no hash")


def _pair(out: Output, path: Path, md5: str, hashes: Hashes) -> Iterator[Fault]:
    """What lies in the workspace and its object in the cache: each is the other's spare."""
    kept, found = hashes.object(md5), hashes[path]
    cached, good = hashes[kept], hashes[kept] == md5.removesuffix(".dir")
    names = {"path": path, "kept": kept, "shelf": kept.parent, "out": out.path, "stage": out.stage}
    names = {name: quote(str(value)) for name, value in names.items()}
    if not good and (out.cached or cached):  # DVC's run cache may keep a copy of what git keeps
        spare = COMMIT if md5.endswith(".dir") else COPY
        steps = [*(["rm -f {kept}"] if cached else []), *([spare] if found == md5 else [])] or [FETCH]
        what = f"{path}: {'corrupt' if cached else 'missing'} in the cache"
        yield Fault(kept, what, " && ".join(steps).format_map(names))
    if found != md5 and (found or path == out.path or out.path.is_dir()):  # a missing folder is one fault
        remedy = (CHECKOUT if good else RESTORE) if out.cached else FROM_GIT
        yield Fault(path, "wrong" if found else "missing", remedy.format_map(names))
