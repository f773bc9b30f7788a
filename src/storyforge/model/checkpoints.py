"""Checkpoints that no kill can tear: staged, hashed, synced, renamed; only what verifies is resumed from.

They lie in a work directory of their own for each run key, which is no DVC output: DVC deletes a stage's
outputs before the stage starts, and a persistent output would be resumed by a run with other params.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from storyforge.launch import UserError
from storyforge.records import dumps

MANIFEST = "MANIFEST.json"
KEPT = 2  # valid checkpoints that rotation leaves: one to fall back on


def run_key(**parts: Any) -> str:
    """What a checkpoint may be resumed under: 16 hex digits of everything that decides the bytes of a run.

    `parts` are the params, inputs and machine; the package's own loaded source is always added.
    """
    sources = {
        name: module.__file__ for name, module in sys.modules.items() if name.startswith("storyforge.")
    }
    code = {name: sha256(Path(file)) for name, file in sources.items() if file}
    return hashlib.sha256(dumps({**parts, "code": code}).encode()).hexdigest()[:16]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def work_directory(key: str) -> Iterator[Path]:
    """This run's own directory, locked against a second process; UserError when another one holds it.

    In `dvc exp run --temp` and queues DVC_ROOT is the main repository, so every way to run resumes alike.
    """
    root = os.environ.get("STORYFORGE_CHECKPOINT_DIR") or Path(
        os.environ.get("DVC_ROOT", "."), ".checkpoints"
    )
    work = Path(root) / key
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{work}: another process is training this very run: wait for it or stop it"
            ) from None
        yield work


def save(work: Path, step: int, write: Callable[[Path], None]) -> None:
    """Let `write` fill a directory that then appears as the checkpoint of `step`, whole; drop older ones."""
    staging, final = work / f".staging-{os.getpid()}", _path(work, step)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        write(staging)
        files = sorted(staging.iterdir())
        (staging / MANIFEST).write_text(json.dumps({file.name: sha256(file) for file in files}))
        for file in (*files, staging / MANIFEST, staging):
            _sync(file)
        if final.exists():
            _discard(final)
        staging.rename(final)
        _sync(work)
    except OSError as error:
        raise UserError(
            f"{work}: the checkpoint of step {step} could not be saved: {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    for old in _checkpoints(work)[KEPT:]:
        _discard(old)


def newest(work: Path) -> Path | None:
    """The valid checkpoint of the highest step; broken ones are set aside: never resumed, never an error."""
    for checkpoint in _checkpoints(work):
        if _valid(checkpoint):
            return checkpoint
        checkpoint.rename(work / f"broken-{checkpoint.name}-{os.getpid()}")
    return None


def _checkpoints(work: Path) -> list[Path]:
    """By step, highest first: a file's date lies when the clock was set."""
    return sorted(work.glob("step-*"), reverse=True)


def _path(work: Path, step: int) -> Path:
    return work / f"step-{step:08d}"


def _valid(checkpoint: Path) -> bool:
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_bytes())
        return bool(manifest) and all(
            sha256(checkpoint / name) == digest for name, digest in manifest.items()
        )
    except (OSError, ValueError, AttributeError):
        return False


def _discard(checkpoint: Path) -> None:
    """Renamed first, so that a kill while deleting leaves nothing that looks like a checkpoint."""
    trash = checkpoint.with_name(f".trash-{checkpoint.name}-{os.getpid()}")
    checkpoint.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def keyed_inputs(files: Iterable[Path]) -> dict[str, str]:
    """File name → sha256, for `run_key`."""
    return {file.name: sha256(file) for file in files}
