"""Where tasks leave files for one another: a folder that all nodes see, or an object store.

Of a store each node fetches a file whole, at most once, into a folder of its own, where it may be mapped.
"""

import fcntl
import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from platform import node
from typing import TYPE_CHECKING, BinaryIO

from filelock import FileLock

from storyforge.core.cache import cache_dir
from storyforge.core.errors import UserError
from storyforge.core.files import published, published_folder

if TYPE_CHECKING:
    from pyarrow.fs import S3FileSystem

BUCKET = re.compile(r"s3://[a-z0-9][a-z0-9.-]*(/(?!\.{1,2}(/|$))[^/?#\s]+)*")  # "..": a client takes it away
# Where the store is: a node gets the driver's; the keys are its own.
PLACE = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION")
CONNECT_S, TRIES, AT_ONCE, BLOCK = 3, 3, 8, 4 << 20
SILENT_S = 5  # of a try; some 7 more where bytes were under way, which curl counts by their mean speed
GOES_ON = "the same command goes on from there"
RIGHTS = "give every node keys ($AWS_ACCESS_KEY_ID, ~/.aws, a role) that may list, read, write, delete there"
PLACED = "see that $AWS_ENDPOINT_URL and $AWS_REGION are right"
REMEDIES = {
    "ACCESS_DENIED": RIGHTS,
    "INVALID_ACCESS_KEY_ID": RIGHTS,
    "SIGNATURE_DOES_NOT_MATCH": RIGHTS,
    "NO_SUCH_BUCKET": "make that bucket, or correct `work` in engine.yaml",
    "VALIDATION": PLACED,
    "NETWORK_CONNECTION": f"see that it answers at $AWS_ENDPOINT_URL, else in $AWS_REGION; {GOES_ON}",
}
_held: dict[Path, BinaryIO] = {}  # locks of the folders that this process keeps what it fetched in


@dataclass(frozen=True, slots=True)
class Work:
    """Files by their names below `root`, a folder or s3://BUCKET/PREFIX.

    A name never comes to stand for other bytes: a node would go on with those that it has. UserError where a
    store or a disk does not do what it is asked.
    """

    root: str

    @property
    def is_stored(self) -> bool:
        return "://" in self.root

    def require(self) -> None:
        """UserError on a machine that does not see the folder; a store is asked when it is needed."""
        if not self.is_stored and not Path(self.root).is_dir():
            raise UserError(
                f"{node()} does not see {self.root}: give engine.yaml a `work` in a folder that all nodes "
                "see, or s3://BUCKET/PREFIX"
            )

    def names(self) -> set[str]:
        """Of all files that are there whole."""
        if not self.is_stored:
            return {path.relative_to(self.root).as_posix() for path in Path(self.root).rglob("*")}
        from pyarrow.fs import FileSelector

        top = _key(self.root)
        with _answering(self.root):
            found = _store().get_file_info(FileSelector(top, recursive=True, allow_not_found=True))
        return {info.path.removeprefix(f"{top}/") for info in found if info.is_file}

    def read(self, name: str) -> Path:
        """The file, on this machine."""
        path = self._here() / name
        if self.is_stored and not path.exists():
            # Of this node's processes one fetches it, the others wait.
            with FileLock(self._here() / "locks" / name.replace("/", "--")):
                if not path.exists():
                    with published(path) as file, _answering(f"{self.root}/{name}") as url:
                        with _store().open_input_stream(_key(url)) as stored:
                            shutil.copyfileobj(stored, file, BLOCK)
        return path

    def fetch(self, names: Iterable[str]) -> None:
        """Several at a time, of a store, what is to be read one by one."""
        if self.is_stored:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                deque(pool.map(self.read, names), 0)

    @contextmanager
    def publishing(self, name: str) -> Iterator[BinaryIO]:
        """A file that is there for all nodes once the block has ended, whole or not at all."""
        with published(self._here() / name) as file:
            yield file
        self._send(name)

    @contextmanager
    def publishing_folder(self, name: str, last: str) -> Iterator[Path]:
        """A folder of files, which is whole where the file `last` is there."""
        with published_folder(self._here() / name) as folder:
            yield folder
        for path in sorted((self._here() / name).iterdir(), key=lambda path: (path.name == last, path.name)):
            self._send(f"{name}/{path.name}")

    def remove(self) -> None:
        """All of it."""
        self.forget()
        if self.is_stored:
            with _answering(self.root), suppress(FileNotFoundError):
                _store().delete_dir(_key(self.root))
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def forget(self) -> None:
        """On this node: what it has of a store goes."""
        if self.is_stored:
            here = self._here()
            _held.pop(here).close()
            shutil.rmtree(here, ignore_errors=True)

    def _here(self) -> Path:
        return _kept(self.root) if self.is_stored else Path(self.root)

    def _send(self, name: str) -> None:
        # What an error cuts short here may stand in the store: nobody reads it before all of this has ended.
        if self.is_stored:
            with _answering(f"{self.root}/{name}") as url, (self._here() / name).open("rb") as file:
                with _store().open_output_stream(_key(url)) as stored:
                    shutil.copyfileobj(file, stored, BLOCK)


def require_store(url: str) -> None:
    """UserError where it does not answer, refuses to be listed, or has no such bucket."""
    bucket = _key(url).partition("/")[0]
    with _answering(url):
        found = _store().get_file_info(bucket)
    if found.type.name == "NotFound":
        raise UserError(f"{url}: there is no bucket {bucket}: {REMEDIES['NO_SUCH_BUCKET']}")


def locked(folder: Path, how: int) -> BinaryIO | None:
    """The folder, made if need be, with its lock, as `fcntl.flock`; None where another process has it.

    The lock ends with its process.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+b")
        try:
            fcntl.flock(lock, how)
        except BlockingIOError:
            lock.close()
            return None
        with suppress(FileNotFoundError):  # its last owner has removed it
            if os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name)):
                return lock
        lock.close()


def _kept(url: str) -> Path:
    """This node's folder for what it has of that; those of which no process makes use any more go."""
    folder = cache_dir() / "work" / hashlib.sha256(url.encode()).hexdigest()[:16]
    if folder not in _held:
        try:
            _held[folder] = locked(folder, fcntl.LOCK_SH)
            (folder / "locks").mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{folder}: {error.strerror}: set STORYFORGE_CACHE to a folder you may write to"
            ) from None
        for other in folder.parent.iterdir():
            with suppress(OSError):  # another user's
                if other not in _held and (lock := locked(other, fcntl.LOCK_EX | fcntl.LOCK_NB)):
                    with lock:
                        shutil.rmtree(other, ignore_errors=True)
    return folder


def _key(url: str) -> str:
    return url.removeprefix("s3://")


def _store() -> "S3FileSystem":
    return _connected(*(os.environ.get(name) for name in PLACE))


@lru_cache(maxsize=1)
def _connected(url: str | None, url_s3: str | None, *regions: str | None) -> "S3FileSystem":
    from pyarrow import fs  # 0.2 s

    return fs.S3FileSystem(
        endpoint_override=url_s3 or url or None,
        region=next(filter(None, regions), None),
        connect_timeout=CONNECT_S,
        request_timeout=SILENT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        allow_delayed_open=True,  # a small file is one request
    )


@contextmanager
def _answering(url: str) -> Iterator[str]:
    """What the store says against it is one line; a disk's own errors pass."""
    try:
        yield url
    except FileNotFoundError:
        why = "it is there no more: has another clone the same `work`? Give each its own, and start again"
        raise UserError(f"{url}: {why}") from None
    except OSError as error:
        if error.errno:
            raise
        raise UserError(f"{url}: {_said(str(error))}") from None


def _said(error: str) -> str:
    found = re.search(r"AWS Error (\w+) during (\w+) operation: (.*?)(\(Request ID|$)", error, re.DOTALL)
    if not found:
        remedy = GOES_ON if "HTTP status" in error else PLACED  # nothing was asked
        return f"{' '.join(error.split())[:300]}: {remedy}"
    code, operation, words = (" ".join(part.split())[:300] for part in found.groups()[:3])
    return f"{code} in {operation}: {words.rstrip('.')}: {REMEDIES.get(code, GOES_ON)}"
