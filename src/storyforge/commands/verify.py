"""Hash every output and every cached file again.

DVC judges a cached file by its mode and an output by its date, and does not notice a flipped bit.
"""

import hashlib
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from pathspec import GitIgnoreSpec
from tqdm import tqdm

from storyforge.commands.repository import Output, output, outputs
from storyforge.core import cache as assets
from storyforge.core.errors import UserError

Listing = dict[str, str]  # relative path → md5


@dataclass(frozen=True, slots=True)
class Fault:
    """A file that is not what dvc.lock says."""

    path: Path
    what: str
    remedy: str  # a command, or two


@dataclass(frozen=True, slots=True)
class Verified:
    files: int
    bytes: int
    faults: list[Fault]


def run() -> bool:
    """Hash and print; True if every file is as recorded."""
    found = verify(cache_dir())
    for fault in found.faults:
        typer.echo(f"{typer.style(str(fault.path), fg='red')}: {fault.what}: {fault.remedy}")
    read = f"{found.files:,} files, {found.bytes / (1 << 20):,.0f} MiB"
    wrong = f"{len(found.faults):,} not as recorded, of {read}: repair from the top, then verify again"
    typer.echo(wrong if found.faults else f"{read}: all as dvc.lock says")
    return not found.faults


def cache_dir() -> Path:
    """As DVC has it from all its configuration files; relative where it lies in the repository."""
    path = Path(output("dvc", "cache", "dir"))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def verify(cache: Path) -> Verified:
    """All outputs of dvc.lock, their objects in DVC's cache, and the cache of fetched files."""
    wanted = outputs()
    kept, objects = [out for out in wanted if out.cached], cache / "files" / "md5"
    if kept and not any(out.path.exists() or stored(objects, out.md5).exists() for out in kept):
        raise UserError("no data of dvc.lock is in this clone: run `dvc repro`")
    total = sum(out.size * (1 + out.cached) for out in wanted)
    with tqdm(total=total, desc="verify", unit="B", unit_scale=True, disable=None, leave=False) as bar:
        hashing = Hashing(bar)
        faults = [fault for out in wanted for fault in _faults(out, objects, hashing)]
    for path, why in assets.damaged():
        faults.append(Fault(path, why, f"rm -f {_quoted(path)}"))
    return Verified(hashing.files, hashing.bytes, list(dict.fromkeys(faults)))


class Hashing:
    """md5 of files, each read once, and how much was read."""

    def __init__(self, bar: tqdm):
        self.bar, self.files, self.bytes = bar, 0, 0
        self.known: dict[Path, str | None] = {}

    def md5(self, path: Path) -> str | None:
        """None where there is no such file."""
        if path not in self.known:
            self.known[path] = self._read(path) if path.is_file() else None
        return self.known[path]

    def _read(self, path: Path) -> str:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
            size = file.tell()
        self.bar.update(size)
        self.files, self.bytes = self.files + 1, self.bytes + size
        return found


def stored(cache: Path, md5: str) -> Path:
    """Where DVC's cache keeps the object of that hash."""
    return cache / md5[:2] / md5[2:]


def _faults(out: Output, cache: Path, hashing: Hashing) -> Iterator[Fault]:
    if not out.is_folder:
        yield from _pair(out, out.path, out.md5, cache, hashing)
        return
    if not out.cached:  # git keeps it: DVC has no list of its files
        if not out.path.is_dir() or _md5_of(_present(out.path, hashing)) != out.md5:
            remedy = f"git checkout -- {_quoted(out.path)} || dvc repro {out.stage}"
            yield Fault(out.path, "wrong or missing", remedy)
        return
    listed = stored(cache, out.md5)
    listing = _listing(listed, out.md5, hashing)
    if listing is None:
        there = hashing.md5(listed) is not None
        whole = out.path.is_dir() and _md5_of(_present(out.path, hashing)) == out.md5
        what = f"{out.path}: cached list of files is {'corrupt' if there else 'missing'}"
        spare = f"dvc commit {out.stage}" if whole else None
        yield Fault(listed, what, _mended(out, listed if there else None, spare))
        if not whole:
            what = "some file in it is wrong" if out.path.is_dir() else "missing"
            yield Fault(out.path, what, _restored(out, out.path))
        return
    if not out.path.is_dir():
        yield Fault(out.path, "missing", f"dvc checkout {_quoted(out.path)}")
    for name, md5 in listing.items():
        yield from _pair(out, out.path / name, md5, cache, hashing)
    for name in sorted(set(_files(out.path)) - set(listing)):
        yield Fault(out.path / name, "not in dvc.lock", f"rm -f {_quoted(out.path / name)}")


def _pair(out: Output, path: Path, md5: str, cache: Path, hashing: Hashing) -> Iterator[Fault]:
    """A file of the workspace and its object in the cache: each is the other's spare."""
    kept, found = stored(cache, md5), hashing.md5(path)
    cached = hashing.md5(kept)
    if cached != md5 and (out.cached or cached):  # DVC's run cache may keep a copy of what git keeps
        spare = f"cp -f {_quoted(path)} {_quoted(kept)}" if found == md5 else None
        what = f"{path}: {'corrupt' if cached else 'missing'} in the cache"
        yield Fault(kept, what, spare or _mended(out, kept if cached else None))
    if found == md5 or found is None and out.is_folder and not out.path.is_dir():
        return
    if not out.cached:
        remedy = f"git checkout -- {_quoted(path)} || dvc repro {out.stage}"
    elif cached == md5:
        remedy = f"rm -f {_quoted(path)} && dvc checkout --force {_quoted(out.path)}"
    else:
        remedy = _restored(out, path)
    yield Fault(path, "wrong" if found else "missing", remedy)


def _mended(out: Output, corrupt: Path | None, spare: str | None = None) -> str:
    """For the cache. A corrupt object goes first; what restores the output then brings it back.

    Never `dvc pull`: where that fails, it deletes the output it could not bring.
    """
    if corrupt:
        return " && ".join(filter(None, (f"rm -f {_quoted(corrupt)}", spare)))
    return spare or f"dvc fetch {_quoted(out.path)} || dvc repro {out.stage}"


def _restored(out: Output, wrong: Path) -> str:
    path = _quoted(out.path)
    again = f"dvc fetch {path} && dvc checkout --force {path} || dvc repro {out.stage}"
    return f"rm -rf {_quoted(wrong)} && {{ {again}; }}" if wrong.exists() else again


def _listing(listed: Path, md5: str, hashing: Hashing) -> Listing | None:
    """What a folder holds, from its list in the cache; None where that is missing or corrupt."""
    if hashing.md5(listed) != md5.removesuffix(".dir"):
        return None
    return {entry["relpath"]: entry["md5"] for entry in json.loads(listed.read_bytes())}


def _present(folder: Path, hashing: Hashing) -> Listing:
    return {name: hashing.md5(folder / name) or "" for name in _files(folder)}


def _files(folder: Path) -> list[str]:
    """Relative paths of all files in a folder that .dvcignore does not exclude."""
    try:
        ignored = GitIgnoreSpec.from_lines(Path(".dvcignore").read_text(encoding="utf-8").splitlines())
    except OSError:
        ignored = GitIgnoreSpec.from_lines([])
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in paths if not ignored.match_file(path)]


def _md5_of(listing: Listing) -> str:
    """DVC's hash of a folder."""
    rows = [{"md5": md5, "relpath": name} for name, md5 in sorted(listing.items())]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
