"""Work folders: the results of a run's tasks, which the same run goes on from after it was killed."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from storyforge.core.errors import UserError
from storyforge.core.files import dumps
from storyforge.core.on_ray import identity
from storyforge.core.storage import Work, locked

ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB


@contextmanager
def work_folder(chosen: str | None, made_of: Any) -> Iterator[Work]:
    """The folder of a run that is made of this and our code, locked against a second process.

    It goes when the block ends. An error leaves it, as a kill does; a run that is made of something else then
    takes it away. It lies in .work of the folder `chosen`, else of the main repository; of a URL, in the
    store, and there the lock alone. UserError where another has it, or nothing can be written.
    """
    key = key_of(made_of)
    url = f"{chosen}/{key}" if chosen and "://" in chosen else ""
    around = chosen if chosen and not url else os.environ.get("DVC_ROOT", ".")
    root = Path(around, ".work").resolve()  # where all is ours to delete
    try:
        lock = locked(root / key, ALONE)
    except OSError as error:
        remedy = "make it one you may write to" if url else "give engine.yaml a `work` you may write to"
        raise UserError(f"{root}: {error.strerror}: {remedy}") from None
    if not lock:
        raise UserError(f"{root / key}: another process is at this very work: wait for it or stop it")
    with lock:
        for other in (path for path in root.glob("*") if path.name != key and (path / "lock").is_file()):
            if left := locked(other, ALONE):
                with left:
                    _remove_stored(_url_of(other))
                    shutil.rmtree(other, ignore_errors=True)
        yield _begun(root / key, url)
        _remove_stored(url)
        shutil.rmtree(root / key, ignore_errors=True)
        with suppress(OSError):  # another run's work is there
            root.rmdir()


def key_of(made_of: Any) -> str:
    """The name of that folder: 16 hex digits of what decides the bytes in it."""
    return hashlib.sha256(dumps([made_of, identity()]).encode()).hexdigest()[:16]


def _begun(folder: Path, url: str) -> Work:
    """The lock says where the work lies: one who finds it left there knows what to remove."""
    if _url_of(folder) != url:
        _remove_stored(_url_of(folder))
    (folder / "lock").write_text(url)
    work = Work(url or str(folder))
    if url:
        with work.publishing("begun"):  # a store that refuses does so before anything is done
            pass
    return work


def _url_of(folder: Path) -> str:
    """ "" where the work lies in the folder itself."""
    return (folder / "lock").read_text()


def _remove_stored(url: str) -> None:
    """That it cannot be removed is no reason to stop."""
    try:
        if url:
            Work(url).remove()
    except UserError as error:
        print(f"note: {url} stays: {error}")
