"""The store of what was paid for: every reply whole, and every request whose end is not known yet.

    replies     key, the service's reply as JSON, whether it came in a batch, sha256 of the reply
    requests    key, the dollars it may cost, the id of the message batch it is in

A row of `requests` is written before anything is sent. It goes in the transaction that keeps its reply, or
once the service refused it. One that is left, and in no batch, was killed or timed out: it may be paid for.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from storyforge.core.errors import UserError

TABLES = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, reply TEXT NOT NULL, batched INTEGER NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, dollars REAL NOT NULL, batch TEXT);
"""


class Store:
    """The open store; any thread may use it."""

    def __init__(self, path: Path, db: sqlite3.Connection):
        self.path, self.db, self.lock = path, db, threading.RLock()

    def reply(self, key: str) -> tuple[dict, bool] | None:
        """The reply and whether it came in a batch."""
        found = self._rows("SELECT reply, batched, digest FROM replies WHERE key = ?", [key])
        for reply, batched, digest in found:
            if not isinstance(reply, str) or digest != _digest(reply):
                raise damaged(self.path, f"the reply to {key[:12]} is not as it came")
            return json.loads(reply), bool(batched)
        return None

    def intend(self, dollars: Mapping[str, float]) -> list[int]:
        """Note requests, by key, that are about to be sent; returns their ids."""
        with self._writing() as db:
            insert = "INSERT INTO requests (key, dollars) VALUES (?, ?)"
            return [db.execute(insert, row).lastrowid for row in dollars.items()]

    def keep(self, key: str, reply: str, *, requests: Collection[int], batched: bool) -> None:
        """The reply, and that its requests ended. A key's first reply stays."""
        with self._writing() as db:
            row = (key, reply, batched, _digest(reply))
            db.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?)", row)
            db.executemany("DELETE FROM requests WHERE id = ?", [[each] for each in requests])

    def forget(self, requests: Collection[int]) -> None:
        """They were not paid for."""
        with self._writing() as db:
            db.executemany("DELETE FROM requests WHERE id = ?", [[each] for each in requests])

    def put_in_batch(self, requests: Collection[int], batch: str | None) -> None:
        with self._writing() as db:
            db.executemany("UPDATE requests SET batch = ? WHERE id = ?", [[batch, each] for each in requests])

    def batches(self) -> dict[str, dict[str, tuple[int, float]]]:
        """Of every batch under way, by its id: key → id and dollars of the request."""
        found: dict[str, dict[str, tuple[int, float]]] = {}
        select = "SELECT batch, key, id, dollars FROM requests WHERE batch IS NOT NULL ORDER BY id"
        for batch, key, request, dollars in self._rows(select):
            found.setdefault(batch, {})[key] = (request, dollars)
        return found

    def unsettled(self) -> list[tuple[str, float, str | None]]:
        """Key, dollars and batch of every request whose end is not known."""
        return self._rows("SELECT key, dollars, batch FROM requests ORDER BY id")

    def _rows(self, select: str, values: Collection[str] = ()) -> list[tuple]:
        with self.lock, _explained(self.path):
            return self.db.execute(select, tuple(values)).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self.lock, _explained(self.path), self.db:
            yield self.db


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The store, for one process at a time; UserError where it is in use, or damaged: it stays as it is."""
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{path}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"{path}: another run is using it: wait until that has ended") from None
    try:
        with _explained(path):
            db = sqlite3.connect(path, check_same_thread=False)
        with closing(db):
            with _explained(path):
                if (found := db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(found)
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")  # what was paid for survives a power failure
                db.executescript(TABLES)
            yield Store(path, db)
    finally:
        lock.release()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What sqlite cannot do as a UserError; OperationalError is about disk and rights, others the content."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise UserError(
            f"{path}: {error}: make room, or set STORYFORGE_CACHE to a folder you may write to"
        ) from None
    except sqlite3.DatabaseError as error:
        raise damaged(path, str(error)) from None


def damaged(path: Path, why: str) -> UserError:
    return UserError(
        f"{path}: damaged ({why}): put a copy back, or move it away: its calls are then paid for again"
    )


def _digest(reply: str) -> str:
    return hashlib.sha256(reply.encode()).hexdigest()
