"""The one door to the hub: https or loopback, the token for the hub alone, nothing taken unverified.

Whatever a server sends or withholds, a download ends: what is wrong is dropped, what is slow is given up.
"""

import io
import ipaddress
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx2 as httpx
from huggingface_hub import HfApi, constants, errors, hf_hub_url, is_offline_mode, set_client_factory
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from storyforge.core.cache import DIGEST, digest, is_inside, obtained, place
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin

WAITS_S = (1, 2, 4, 8, 16)  # between attempts that bring too little
LONGEST_WAIT_S = 300  # that a server may ask for
TIMEOUT_S = 30  # without a byte
LEAST_SPEED = 1000  # bytes a second, over TIMEOUT_S
MOST_FILES = 100_000  # of a repository
Result = TypeVar("Result")


class Content(NamedTuple):
    """What a file must hold: its sha256, or git's blob sha1 where a hub gives no more, and its bytes."""

    digest: str
    size: int


class Refused(UserError):
    """The hub does not let this user read the repository, or there is none of that name."""


class _Wrong(Exception):
    """An answer that is not what was asked for: what came of it is dropped."""


def listing(origin: Origin) -> dict[str, Content]:
    """All files of the repository at that commit, by name."""
    kept = listed(origin)
    try:
        found = {name: Content(*entry) for name, entry in json.loads(kept.read_bytes()).items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{kept}: is no list of files: remove it") from None
    return _sound(origin, found)


def listed(origin: Origin) -> Path:
    """The list itself; kept, since a commit does not change. Its sha256 stands for all the content."""

    def ask(part: Path) -> None:
        found = _sound(origin, _asked(str(origin), lambda: _tree(origin)))
        part.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")

    return obtained(place("lists", f"{flat(origin)}.json"), ask)


def _tree(origin: Origin) -> dict[str, Content]:
    repo, repo_type = _repository(origin)
    hub, options = HfApi(endpoint=_endpoint()), {"revision": origin.revision, "recursive": True}
    try:
        tree = list(islice(hub.list_repo_tree(repo, repo_type=repo_type, **options), MOST_FILES + 1))
        entries = [entry for entry in tree if hasattr(entry, "blob_id")]  # the rest are folders
        found = {e.path: Content(e.lfs.sha256 if e.lfs else e.blob_id, e.size) for e in entries}
    except (LookupError, TypeError, ValueError) as error:
        raise UserError(f"{origin}: the hub's list of files cannot be read: {error!r:.200}") from None
    if len(tree) > MOST_FILES:
        raise UserError(f"{origin}: the repository has more than {MOST_FILES:,} files")
    return found


def _sound(origin: Origin, found: dict[str, Content]) -> dict[str, Content]:
    """The list, whose names and digests become paths; it may come from a hub, or from a cache of others."""
    for name, (oid, size) in found.items():
        if not is_inside(name):
            raise UserError(f"{origin}: the file name {name!r} leads out of the repository")
        if not DIGEST.fullmatch(str(oid)) or not isinstance(size, int) or size < 0:
            raise UserError(f"{origin}: {name}: {oid!r:.80} is no digest, or {size!r:.80} no size")
    return found


def require_access(origin: Origin) -> None:
    """UserError where the hub does not let this user read the repository, or cannot be asked."""
    repo, repo_type = _repository(origin)
    _asked(str(origin), lambda: HfApi(endpoint=_endpoint()).auth_check(repo, repo_type=repo_type))


def download(origin: Origin, name: str, content: Content, part: Path) -> None:
    """Leave exactly `content` at `part`, going on from what an earlier attempt or process left there.

    The hub's client resumes, but takes wrong content of the right size: fetched again once.
    """
    label = f"{origin} {name}"
    if content.size > constants.MAX_HTTP_DOWNLOAD_SIZE:
        raise UserError(f"{label}: {content.size:,} bytes: over 50 GB; take a repository of smaller files")
    repo, repo_type = _repository(origin)
    url = hf_hub_url(repo, name, repo_type=repo_type, revision=origin.revision, endpoint=_endpoint())

    def append() -> None:
        if _size(part) > content.size:
            part.unlink()
        with _Bounded(part, content.size) as file:
            headers = build_hf_headers() | {"Accept-Encoding": "identity"}
            have = {"resume_size": _size(part), "expected_size": content.size}
            http_get(url, file, headers=headers, displayed_filename=name, **have)

    for _ in range(2):
        _asked(label, append, part)
        if (found := digest(part, content.digest)) == content.digest:
            return
        part.unlink()  # nothing tells which of its bytes are wrong
    raise UserError(
        f"{label}: {content.digest} was expected and {found} came, twice: corrupted on the way, or replaced"
    )


class _Bounded(io.BufferedWriter):
    """A file to append to that refuses to grow beyond what it must hold."""

    def __init__(self, path: Path, limit: int):
        super().__init__(io.FileIO(path, "ab"))
        self.limit = limit

    def write(self, data) -> int:
        if self.tell() + len(data) > self.limit:
            raise _Wrong(f"more came than the {self.limit:,} bytes it must have")
        return super().write(data)


def _asked(label: str, ask: Callable[[], Result], part: Path | None = None) -> Result:
    """What `ask` returns; UserError where the server or the connection fails for good.

    The hub's client repeats a request, but no download after 5xx or broken off: `part` is gone on with here.
    """
    if is_offline_mode():
        raise UserError(f"{label}: not in the cache, and HF_HUB_OFFLINE is set: unset it, run again")
    set_client_factory(_client)
    failures, waits = 0, WAITS_S if part else ()
    while True:
        before = _size(part)
        try:
            return ask()
        except errors.RepositoryNotFoundError:  # for a wrong name and a missing right alike
            raise Refused(f"{_refused(label)}; or the name is wrong") from None
        except errors.RevisionNotFoundError:
            raise UserError(f"{label}: the repository has no such commit") from None
        except errors.HfHubHTTPError as error:
            status, reason = error.response.status_code, f"HTTP {error.response.status_code}"
            if status in (401, 403):
                raise Refused(_refused(label)) from None
            if status == 416 and part:  # no such range: the part is not of this file
                part.unlink(missing_ok=True)
            elif status < 500:
                host = error.response.url.host
                raise UserError(f"{label}: {reason} from {host}: check name and revision") from None
        except (httpx.RequestError, _Wrong, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's; the client's own have no number
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            if isinstance(error, _Wrong) and part:
                part.unlink(missing_ok=True)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            why = f"{type(error).__name__}: {error}"[:200]
            raise UserError(
                f"{label}: what the hub answers is none of a hub ({why}): check HF_ENDPOINT"
            ) from None
        failures = failures + 1 if _size(part) - before < LEAST_SPEED * TIMEOUT_S else 1
        if failures > len(waits):
            raise UserError(
                f"{label}: not in the cache, and the hub cannot be asked ({reason}): "
                "run the command again with a network, or set HF_ENDPOINT to a mirror"
            )
        time.sleep(waits[failures - 1] * random.Random().uniform(0.5, 1))  # many clients, many moments


def _client() -> httpx.Client:
    """The hub's client with our rules for each request and redirect."""

    def check(request: httpx.Request) -> None:
        require_https(str(request.url))
        if request.url.host != httpx.URL(_endpoint()).host:
            request.headers.pop("Authorization", None)

    def bound(response: httpx.Response) -> None:
        response.headers.pop("RateLimit", None)  # asks for a wait too
        if (wait := response.headers.get("Retry-After", "")).isdigit():
            response.headers["Retry-After"] = str(min(int(wait), LONGEST_WAIT_S))
        response.stream = _Timed(response.stream)

    hooks = {"request": [check], "response": [bound]}
    return httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=TIMEOUT_S)


class _Timed(httpx.SyncByteStream):
    """A body that ends with an error once it is too slow: the client's timeout sees single bytes alone."""

    def __init__(self, stream: httpx.SyncByteStream):
        self.stream = stream

    def __iter__(self) -> Iterator[bytes]:
        start, came = time.monotonic(), 0
        for data in self.stream:
            yield data
            came, seconds = came + len(data), time.monotonic() - start
            if seconds > TIMEOUT_S:
                if came < LEAST_SPEED * seconds:
                    raise TimeoutError(f"{came:,} bytes in {seconds:.0f} s")
                start, came = time.monotonic(), 0

    def close(self) -> None:
        self.stream.close()


def require_https(url: str) -> None:
    """UserError for an address whose traffic others can read or change; loopback is this machine itself."""
    parts = httpx.URL(url)
    try:
        loopback = parts.host == "localhost" or ipaddress.ip_address(parts.host).is_loopback
    except ValueError:
        loopback = False
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise UserError(f"{url}: only https is trusted: check HF_ENDPOINT")


def _refused(label: str) -> str:
    return (
        f"{label}: access is refused: accept the licence on its page and set HF_TOKEN to that account's token"
    )


def _repository(origin: Origin) -> tuple[str, str]:
    name = origin.name.removeprefix("datasets/")
    return name, "model" if name == origin.name else "dataset"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def flat(origin: Origin) -> str:
    """Its name and commit as a file name."""
    return f"{origin.name.replace('/', '--')}@{origin.revision}"


def _size(path: Path | None) -> int:
    return path.stat().st_size if path and path.exists() else 0


set_client_factory(_client)  # whatever another library in this process asks of the hub, it asks here
