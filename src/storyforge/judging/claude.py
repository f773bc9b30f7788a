"""Anthropic's service, through its SDK, which is imported inside functions alone: it is an extra."""

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

import httpx2

from storyforge.core.errors import UserError
from storyforge.judging.params import CallParams
from storyforge.judging.service import (
    AGAIN,
    Batch,
    Call,
    Due,
    Failed,
    Service,
    Tokens,
    Unusable,
    hidden,
    readable,
    refused,
    retry_after,
    secret,
    timeout,
    trusted,
    unreached,
    written,
)

KEY = "ANTHROPIC_API_KEY"
URL = "https://api.anthropic.com"
Result = TypeVar("Result")


def _sdk() -> Any:
    try:
        import anthropic
    except ImportError:
        raise UserError(
            "the package anthropic is missing: .venv/bin/python -m pip install -r requirements-judge.txt"
        ) from None
    return anthropic


def identity(params: CallParams) -> str:
    """Part of every key: with another major version of the SDK the same call may mean something else."""
    return f"anthropic {_sdk().__version__.split('.')[0]}"


def warnings(params: CallParams) -> list[str]:
    from anthropic.resources.messages import DEPRECATED_MODELS

    end = DEPRECATED_MODELS.get(params.model)
    return [f"{params.model} is deprecated, its service ends on {end}: take a newer model"] if end else []


def text(reply: dict) -> str:
    """What was written after the thinking; Unusable where it ended before its end."""
    if (stop := reply["stop_reason"]) not in ("end_turn", "stop_sequence"):
        raise Unusable(str(stop))
    return "".join(block["text"] for block in reply["content"] if block["type"] == "text")


def tokens(reply: dict) -> Tokens:
    usage = reply["usage"]
    return Tokens(
        input=usage["input_tokens"],
        output=usage["output_tokens"],
        cache_read=usage.get("cache_read_input_tokens") or 0,
        cache_write=usage.get("cache_creation_input_tokens") or 0,
    )


class Link(NamedTuple):
    client: Any
    key: str
    url: str
    params: CallParams


def connect(params: CallParams) -> Service:
    """UserError without SDK or key. No file of the SDK and no other variable says where the key goes."""
    sdk, key = _sdk(), secret(KEY)
    if not key:
        raise UserError(f"{KEY} is not set: without a key nothing can be asked of {params.model}")
    for variable in ("ANTHROPIC_CUSTOM_HEADERS", "ANTHROPIC_BASE_URL"):
        os.environ.pop(variable, None)
    url = trusted(params.base_url or URL)
    client = sdk.Anthropic(
        api_key=key,
        base_url=url,
        max_retries=0,  # the SDK obeys any Retry-After, and would repeat what may be paid for already
        timeout=timeout(params),
        open_telemetry=False,
        http_client=sdk.DefaultHttpxClient(follow_redirects=False),  # they would take the key along
    )
    link = Link(client, key, url, params)
    batch = Batch(partial(_create, link), partial(_ended, link), partial(_results, link))
    return Service(partial(_check, link), partial(_count, link), partial(_send, link), batch)


def _check(link: Link) -> None:
    _asked(link, lambda: link.client.models.retrieve(link.params.model))
    if not link.params.price:
        raise UserError(
            f"calls.prices has no {link.params.model}, so that its cost is not known: add its prices"
        )


def _count(link: Link, call: Call) -> int:
    asking = {name: value for name, value in _request(call, link.params).items() if name != "max_tokens"}
    return _asked(link, lambda: _field(link.client.messages.count_tokens(**asking), "input_tokens", int))


def _send(link: Link, call: Call, number: int) -> str:
    raw = link.client.messages.with_raw_response  # the body as it came: types that change lose no part of it
    reply = _asked(link, lambda: raw.create(**_request(call, link.params)).http_response.json())
    return _asked(link, lambda: written(readable(reply, text, tokens), link.key))


def _request(call: Call, params: CallParams) -> dict[str, Any]:
    form = {"format": {"type": "json_schema", "schema": call.schema}}
    return {
        "model": params.model,
        "max_tokens": params.max_output_tokens,
        "system": [{"type": "text", "text": call.system, "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": call.text}],
        "output_config": form | ({"effort": params.effort} if params.effort else {}),
    }


def _create(link: Link, due: Due) -> str:
    requests = [{"custom_id": key, "params": _request(call, link.params)} for key, (call, _) in due.items()]
    return _asked(link, lambda: _field(link.client.messages.batches.create(requests=requests), "id", str))


def _ended(link: Link, batch: str) -> bool | None:
    """None once its results are gone, after 29 days, and where it is another account's."""
    import anthropic

    def ended() -> bool | None:
        found = link.client.messages.batches.retrieve(batch)
        status = _field(found, "processing_status", str)
        return None if getattr(found, "archived_at", None) else status == "ended"

    try:
        return _asked(link, ended, anthropic.NotFoundError)
    except anthropic.NotFoundError:
        return None


def _results(link: Link, batch: str) -> tuple[dict[str, str | None], str]:
    """The replies, None where a request is to be sent again, and what the service says is wrong with one."""
    replies, wrong = {}, ""
    results = link.client.messages.batches.results
    for key, result in _asked(link, lambda: [_entry(each) for each in results(batch)]):
        if result.get("type") == "succeeded":
            with suppress(ValueError):
                replies[key] = written(readable(result.get("message"), text, tokens), link.key)
            continue
        replies[key] = None
        with suppress(LookupError, TypeError):  # an error of another form
            if (error := result["error"]["error"])["type"] == "invalid_request_error":
                said = hidden(str(error["message"]), link.key, 300)
                wrong = f"{link.params.model} refuses a request of batch {batch}: {said}"
    return replies, wrong


def _entry(entry: Any) -> tuple[str, dict]:
    """Key and result of one request of a batch."""
    import anthropic

    result = _field(entry, "result", anthropic.BaseModel)
    return _field(entry, "custom_id", str), result.to_dict(mode="json", warnings=False)


def _field(reply: Any, name: str, kind: type[Result]) -> Result:
    """ValueError where the reply, whose types the SDK does not check, has no such field."""
    if not isinstance(found := getattr(reply, name, None), kind):
        raise ValueError(f"no {name} in it")
    return found


def _asked(link: Link, ask: Callable[[], Result], allowed: type[Exception] | tuple = ()) -> Result:
    """What `ask` returns; its errors as Failed or UserError, without the key; `allowed` ones as they are."""
    import anthropic

    try:
        return ask()
    except allowed:
        raise
    except anthropic.APIConnectionError as error:
        raise unreached(error.__cause__, link.key, link.url) from None
    except anthropic.APIStatusError as error:
        said = f"HTTP {error.status_code}: {hidden(str(error.api_message or error.message), link.key, 300)}"
        if error.status_code not in AGAIN and error.status_code < 500:
            raise refused(said, error.status_code, KEY, link.params) from None
        wait = retry_after(error.response.headers)
        raise Failed(f"{link.url}: {said}", answered=True, perhaps_paid=False, retry_after=wait) from None
    except httpx2.HTTPError as error:  # while a result is read
        raise unreached(error, link.key, link.url) from None
    except (anthropic.AnthropicError, ValueError, RecursionError) as error:
        said = f"{link.url}: a reply that cannot be read ({hidden(str(error), link.key, 200)})"
        raise Failed(said, answered=True, perhaps_paid=True) from None
