"""Checkpoints that no kill can tear: staged, hashed, synced, renamed; only what verifies is resumed from.

They lie in a work directory of their own for each run key, which is no DVC output: DVC deletes a stage's
outputs before the stage starts, and a persistent output would be resumed by a run with other params.
"""

import fcntl
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, sync, sync_folder
from storyforge.core.launch import first_process
from storyforge.core.text import printable
from storyforge.train.keys import hashes

MANIFEST = "MANIFEST.json"
PARTS = "run.json"  # what the key of a work directory is made of
SHOWN, LONG = 3, 40  # differences between two runs in a line; characters of a value that is not shown there
KEPT = 2  # checkpoints that rotation leaves: one to fall back on
REMEMBERED = 4  # unfinished runs of other keys that keep their checkpoints, by last use
WAIT_S = 30  # for a run that was told to end and saves a last checkpoint


@contextmanager
def work_directory(key: str) -> Iterator[Path]:
    """This run's own directory, locked against a second process; UserError when another one keeps it.

    In `dvc exp run --temp` and queues DVC_ROOT is the main repository, so every way to run resumes alike.
    Where several processes make one run, the first of them holds the lock.
    """
    root = _root()
    work = root / key
    if not first_process():
        yield work
        return
    try:
        lock = _locked(work, WAIT_S)
    except OSError as error:
        remedy = "set STORYFORGE_CHECKPOINT_DIR to a folder you may write to"
        raise UserError(f"{work}: {error.strerror}: {remedy}") from None
    if not lock:
        raise UserError(f"{work}: another process is training this very run: wait for it or stop it")
    with lock:
        for left in (*root.glob(".trash-*"), *work.glob(".trash-*"), work / ".staging"):
            shutil.rmtree(left, ignore_errors=True)
        with suppress(OSError):  # another process may be tidying too
            _forget(root, but=work)
        yield work


def has_checkpoint(key: str) -> bool:
    """Whether a run of that key was interrupted."""
    return bool(_checkpoints(_root() / key))


def explain_start(work: Path, parts: Mapping[str, Any]) -> None:
    """On a fresh start, one line on the checkpoints of other runs that lie there, and why they do not fit.

    `parts` are those of the key; they are noted in the work directory, for the runs that come after.
    """
    with suppress(OSError):  # without it a later line knows less; a full disk is reported by what needs it
        (work / PARTS).write_text(dumps(parts), encoding="utf-8")
    if _checkpoints(work):
        return
    others = sorted(folder for folder in work.parent.glob("[!.]*") if _checkpoints(folder))
    if others:
        said = "; ".join(f"{_checkpoints(other)[0]}, {_differing(other, parts)}" for other in others)
        print(f"starts anew: the checkpoints that lie there are of other runs: {said}")


def _differing(other: Path, parts: Mapping[str, Any]) -> str:
    """By what another run's key differs from that of these `parts`."""
    try:
        theirs, ours = dict(_leaves(json.loads((other / PARTS).read_bytes()))), dict(_leaves(parts))
    except (OSError, ValueError, RecursionError):
        return f"whose {PARTS} cannot be read"
    said = []
    for name in sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        before, now = theirs.get(name, "absent"), ours.get(name, "absent")
        # Hashes and Python's version are too long, and tell nobody anything.
        said.append(f"{name} {before} → {now}" if max(len(before), len(now)) < LONG else name)
    more = [f"and {len(said) - SHOWN} more"] if len(said) > SHOWN else []
    return f"with another {', '.join(said[:SHOWN] + more)}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Dotted path → JSON of what nested mappings hold."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path, dumps(value)


def discard(folder: Path) -> None:
    """Delete a checkpoint or a work directory: renamed first, so that a kill leaves nothing like one."""
    trash = folder.with_name(f".trash-{folder.name}")
    shutil.rmtree(trash, ignore_errors=True)
    folder.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def save(work: Path, step: int, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory that then appears as the checkpoint of `step`, whole; drop older ones."""
    _publish(work, f"step-{step:08d}", f"step {step}", write)
    for old in _checkpoints(work)[KEPT:]:
        discard(old)


def made_once(work: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The directory `name` of `work` that `write` fills: once for all starts of a run, anew where damaged."""
    made = work / name
    there = made.exists()
    if there and _valid(made):
        return made
    if there:
        print(printable(f"{made} is damaged: made anew"), file=sys.stderr)
    _publish(work, name, name, write)
    return made


def _publish(work: Path, name: str, what: str, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory that then appears as `name`, whole; UserError says that of `what`."""
    staging, final = work / ".staging", work / name
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir()
        write(staging)
        (staging / MANIFEST).write_text(json.dumps(_manifest(staging, work.name, final.name)))
        sync_folder(staging)
        if final.exists():
            discard(final)
        staging.rename(final)
        sync(work)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's and safetensors' for a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        free = shutil.disk_usage(work).free
        raise UserError(
            f"{work}: {what} could not be saved, with {free:,} bytes free: {reason}: "
            "make room, or set STORYFORGE_CHECKPOINT_DIR to a folder on another disk"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def newest(work: Path) -> Path | None:
    """The valid checkpoint of the highest step; broken ones are set aside: never resumed, never an error."""
    for checkpoint in _checkpoints(work):
        if _valid(checkpoint):
            return checkpoint
        print(printable(f"{checkpoint} is damaged: set aside"), file=sys.stderr)
        aside = work / f"broken-{checkpoint.name}"
        shutil.rmtree(aside, ignore_errors=True)
        with suppress(FileNotFoundError):  # another process of this run was faster
            checkpoint.rename(aside)
    return None


def _root() -> Path:
    chosen = os.environ.get("STORYFORGE_CHECKPOINT_DIR")
    return Path(chosen or Path(os.environ.get("DVC_ROOT", "."), ".checkpoints"))


def _checkpoints(work: Path) -> list[Path]:
    """By step, highest first: a file's date is wrong once the clock was set."""
    return sorted(work.glob("step-*"), reverse=True)


def _valid(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        return manifest == _manifest(checkpoint, checkpoint.parent.name, checkpoint.name)
    except (OSError, ValueError, RecursionError):
        return False


def _manifest(folder: Path, key: str, name: str) -> dict[str, Any]:
    """What makes a checkpoint this one of this run: no other's files verify in its place."""
    files = [file for file in sorted(folder.iterdir()) if file.name != MANIFEST]
    return {"key": key, "name": name, "files": hashes(files, folder)}


def _locked(work: Path, wait_s: float = 0) -> TextIO | None:
    """The directory's lock, held until closed; None if another process has it for longer than `wait_s`."""
    end = time.monotonic() + wait_s
    while True:
        work.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # deleted meanwhile: made again
            lock = (work / "lock").open("w")  # touched: its date is that of the last use
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), (work / "lock").stat()):
                    return lock
            lock.close()
        if time.monotonic() >= end:
            return None
        time.sleep(0.1)


def _forget(root: Path, but: Path) -> None:
    """Delete the work of runs that were left longest ago; one that is running holds its lock and stays."""
    left = sorted(root.glob("[!.]*/lock"), key=lambda lock: lock.stat().st_mtime, reverse=True)
    for work in [lock.parent for lock in left if lock.parent != but][REMEMBERED:]:
        if lock := _locked(work):
            with lock:
                discard(work)
