"""What a service of language models is to its callers: calls in, whole replies out, and how it fails."""

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx2

from storyforge.core.errors import UserError
from storyforge.core.hub import require_https
from storyforge.judging.params import CallParams


@dataclass(frozen=True)
class Call:
    """One question. Another `repeat` asks it anew; `label` is what its cost is counted under."""

    system: str
    text: str
    schema: dict[str, Any]  # JSON schema of the reply: all fields required, no others allowed
    repeat: int = 0
    label: str = ""


AGAIN = (408, 409, 429)  # statuses that may be another next time, as may all from 500
Due = Mapping[str, tuple[Call, int]]  # by key: what is to be sent, and its number among the same


class Tokens(NamedTuple):
    """Billed for one reply; `input` is what the service's cache neither gave nor took."""

    input: float = 0
    output: float = 0
    cache_read: float = 0
    cache_write: float = 0


class Failed(Exception):
    """A request that may be sent again."""

    def __init__(self, text: str, *, answered: bool, perhaps_paid: bool, retry_after: float = 0):
        super().__init__(text)
        self.answered = answered  # by the server, if only with an error
        self.perhaps_paid = perhaps_paid
        self.retry_after = retry_after  # seconds that the server asks for


class Unusable(Exception):
    """Why a reply, though paid for, is no answer: one word, to be counted."""


class Batch(NamedTuple):
    """A provider's message batches."""

    create: Callable[[Due], str]  # its id
    ended: Callable[[str], bool | None]  # None: the service does not know it (any more)
    results: Callable[
        [str], tuple[dict[str, str | None], str]
    ]  # reply by key (None: not paid for, send again; none of it: paid, and not to be read); what is wrong


class Service(NamedTuple):
    """A provider, connected. All may raise Failed, or UserError where trying again is no use."""

    check: Callable[[], None]  # whether server, key and model are there; costs nothing
    count: Callable[[Call], int]  # input tokens
    send: Callable[[Call, int], str]  # the whole reply, as JSON
    batch: Batch | None


def unreached(error: Exception | None, key: str | None, url: str) -> Failed:
    """A request without an answer; what was never sent is not paid for."""
    unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)
    why = str(error or "") or type(error).__name__
    if isinstance(error, httpx2.TimeoutException):
        why = "no answer in time"
    text = f"{url} cannot be reached ({hidden(why, key, 200)})"
    return Failed(text, answered=False, perhaps_paid=not unsent)


def secret(variable: str) -> str | None:
    """The API key in the environment; UserError where it cannot be one, which never shows it."""
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[\w.~+/=:-]*", key, re.ASCII):
        raise UserError(f"{variable}: is no key: it has a space, a quotation mark or a letter beyond ASCII")
    return key or None


def written(reply: dict, key: str | None) -> str:
    """A reply as it is kept: pure ASCII, since a server may send halves of characters."""
    return hidden(json.dumps(reply), key)


def readable(reply: Any, text: Callable[[dict], str], tokens: Callable[[dict], Tokens]) -> dict:
    """The reply; ValueError where it lacks what these read of it."""
    try:
        if sum(tokens(reply)) < 0 or not isinstance(text(reply), str):
            raise TypeError("no text, or fewer than no tokens")
    except Unusable:
        pass
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"not of the service's form: {error!r:.80}") from None
    return reply


def hidden(text: str, key: str | None, most: int | None = None) -> str:
    """The text without the key, which a server may have put there; then cut, since half a key is one too."""
    return (text.replace(key, "[key]") if key else text)[:most]


def trusted(base_url: str) -> str:
    """The address, fit to send a key to."""
    try:
        require_https(base_url)
    except (UserError, httpx2.InvalidURL):
        raise UserError(f"calls.base_url = {base_url}: only https is trusted, or http on loopback") from None
    return base_url.rstrip("/")


def timeout(params: CallParams) -> httpx2.Timeout:
    """A judge may think for minutes; a server that is there lets itself be reached at once."""
    return httpx2.Timeout(params.timeout_s, connect=min(30, params.timeout_s))


def retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait; 0 where it does not say, or gives a date."""
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if re.fullmatch(r"\d{1,9}(\.\d+)?", value := headers.get(name, "")):
            return float(value) / unit
    return 0


def refused(said: str, status: int, variable: str, params: CallParams) -> UserError:
    """The line for a request that will be refused every time."""
    if status in (401, 403):
        return UserError(f"{said}: the service refuses the key: check {variable}")
    if status == 404:
        return UserError(f"{said}: check calls.model = {params.model} and calls.base_url")
    return UserError(f"{said}: {params.model} refuses the request: check `calls` in params.yaml")
