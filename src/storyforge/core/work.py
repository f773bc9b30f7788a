"""Work folders: the results of a run's tasks, which the same run goes on from after it was killed."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from storyforge.core.errors import UserError


@contextmanager
def work_folder(chosen: str | None, key: str) -> Iterator[Path]:
    """The run's own folder, locked against a second process; it goes when the block ends.

    An error leaves it, as a kill does; a run of another key then takes it away. It lies in .work of the
    folder `chosen`, else of the main repository. UserError where another has it, or nothing can be written.
    """
    root = Path(chosen or os.environ.get("DVC_ROOT", "."), ".work").resolve()  # where all is ours to delete
    try:
        lock = _locked(root / key)
    except OSError as error:
        raise UserError(f"{root}: {error.strerror}: give engine.yaml a `work` you may write to") from None
    if not lock:
        raise UserError(f"{root / key}: another process is at this very work: wait for it or stop it")
    with lock:
        for other in (path for path in root.glob("*") if path.name != key and (path / "lock").is_file()):
            if left := _locked(other):
                with left:
                    shutil.rmtree(other, ignore_errors=True)
        yield root / key
        shutil.rmtree(root / key, ignore_errors=True)
        with suppress(OSError):  # another run's work is there
            root.rmdir()


def _locked(folder: Path) -> BinaryIO | None:
    """The folder's lock, which ends with its process; None where another one has it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = (folder / "lock").open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
