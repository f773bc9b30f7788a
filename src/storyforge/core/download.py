"""One file from one address: size and digest known before, verified bytes after, or nothing.

The hub's own client takes wrong content of the right size, and begins again after a kill; this does neither.
"""

import ipaddress
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx2 as httpx
from tqdm import tqdm

from storyforge.core.cache import digest
from storyforge.core.errors import UserError

ATTEMPTS = 6  # in a row without a new byte; 31 s of waiting in all
LONGEST_WAIT_S = 300.0
TIMEOUT_S = 30.0  # for a connection, and for the next bytes of a body


@dataclass(frozen=True, slots=True)
class Content:
    """What a file must hold: sha256, or git's blob sha1 where a hub gives no more."""

    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class _Job:
    url: str
    content: Content
    part: Path
    label: str


class _Again(Exception):
    """An attempt that may go better next time, after `wait_s` where the server asks for it."""

    def __init__(self, reason: str, wait_s: float | None = None):
        super().__init__(reason)
        self.wait_s = wait_s


def download(url: str, content: Content, part: Path, label: str, token: str | None) -> None:
    """Leave exactly `content` at `part`, going on from what an earlier attempt or process left there.

    Tries again with growing waits on 408, 429, 5xx, a broken connection, a short body or wrong bytes.
    """
    job, failures = _Job(url, content, part, label), 0
    bar = tqdm(total=content.size, desc=label, unit="B", unit_scale=True, disable=None)
    with bar, _client(token) as client:
        while True:
            before = _size(part)
            try:
                if before != content.size or not part.exists():
                    _append(client, job, bar)
                return _verify(part, content)
            except (httpx.RequestError, _Again) as error:
                failures = failures + 1 if _size(part) <= before else 1
                if failures == ATTEMPTS:
                    raise UserError(
                        f"{label}: given up after {ATTEMPTS} attempts: {_reason(error)}"
                    ) from None
                time.sleep(_wait_s(error, failures))


def _client(token: str | None) -> httpx.Client:
    """httpx drops the token when a redirect leaves the host, and calls our hook before each hop."""
    return httpx.Client(
        headers={"Authorization": f"Bearer {token}"} if token else None,
        event_hooks={"request": [lambda request: require_https(str(request.url))]},
        follow_redirects=True,
        timeout=TIMEOUT_S,
    )


def require_https(url: str) -> None:
    """UserError for an address that would be read over an open line; this machine itself is none."""
    parts = httpx.URL(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.host)):
        raise UserError(f"{url}: only https is trusted: check HF_ENDPOINT")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _append(client: httpx.Client, job: _Job, bar: tqdm) -> None:
    """Ask once for what the part lacks; what arrives before a break stays for the next attempt.

    No ETag is compared: the part is named by the content's digest, and the whole is held against that.
    """
    have = _size(job.part) if _size(job.part) < job.content.size else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with client.stream("GET", job.url, headers=headers) as response:
        _refuse(response, job.label)
        have = have if response.status_code == 206 else 0
        with job.part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > job.content.size:
                    raise _Again(f"more came than the {job.content.size:,} bytes it must have")
                file.write(chunk)
                bar.update(have - bar.n)


def _refuse(response: httpx.Response, label: str) -> None:
    """Sort what is no content into "again" and "never"."""
    status = response.status_code
    if status in (401, 403):
        raise UserError(refused(label))
    if status in (408, 416, 429) or status >= 500:
        raise _Again(f"HTTP {status}", _retry_after_s(response.headers.get("retry-after", "")))
    if status not in (200, 206):
        raise UserError(f"{label}: HTTP {status} from {response.url.host}: check name and revision")


def refused(label: str) -> str:
    """What to do about a repository that is gated or private."""
    return (
        f"{label}: access is refused: accept the licence on its page and set HF_TOKEN to that account's token"
    )


def _verify(part: Path, content: Content) -> None:
    found = digest(part, content.digest)
    if found != content.digest:
        part.unlink()  # nothing tells which of its bytes are wrong
        raise _Again(f"{content.digest} was expected and {found} came: corrupted on the way, or replaced")


def _retry_after_s(value: str) -> float | None:
    """Retry-After in seconds, given as a number or as a date."""
    try:
        return float(value) if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
    except ValueError:
        return None


def _wait_s(error: Exception, failures: int) -> float:
    asked = getattr(error, "wait_s", None)
    if asked is not None:
        return min(max(asked, 0.0), LONGEST_WAIT_S)
    return 2.0 ** (failures - 1) * random.Random().uniform(
        0.5, 1.0
    )  # so that many clients do not come back at once


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
