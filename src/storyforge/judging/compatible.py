"""Any server that speaks OpenAI's chat completions, one on this machine among them."""

from functools import partial
from typing import Any, NamedTuple

import httpx2

from storyforge.core.errors import UserError
from storyforge.judging.params import CallParams
from storyforge.judging.service import (
    AGAIN,
    Call,
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

KEY = "OPENAI_API_KEY"  # sent where it is set: a server of one's own asks for none
CHARACTERS_A_TOKEN = 3  # rather too few, for the estimate: there is nobody to ask
UNUSABLE = {"length": "max_tokens", "content_filter": "refusal"}


def identity(params: CallParams) -> str:
    """Part of every key: a model's name means something on its server alone."""
    return f"openai {params.base_url}"


def warnings(params: CallParams) -> list[str]:
    unpriced = f"no price is known of {params.model} (calls.prices): its calls are counted as free"
    return [] if params.price else [unpriced]


def text(reply: dict) -> str:
    choice = reply["choices"][0]
    if choice["message"].get("refusal"):
        raise Unusable("refusal")
    if (stop := choice["finish_reason"]) != "stop":
        raise Unusable(UNUSABLE.get(stop, str(stop)))
    return choice["message"]["content"] or ""


def tokens(reply: dict) -> Tokens:
    """Zeros where the server counts none."""
    usage = reply.get("usage") or {}
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Tokens(
        input=(usage.get("prompt_tokens") or 0) - cached,
        output=usage.get("completion_tokens") or 0,
        cache_read=cached,
    )


class Link(NamedTuple):
    client: httpx2.Client
    key: str | None
    url: str
    params: CallParams


def connect(params: CallParams) -> Service:
    if not params.base_url:
        raise UserError("calls.base_url is missing: the address of the server, up to /v1")
    key = secret(KEY)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    client = httpx2.Client(timeout=timeout(params), headers=headers)  # follows no redirect, nor does the key
    link = Link(client, key, trusted(params.base_url), params)
    return Service(partial(_check, link), _count, partial(_send, link), batch=None)


def _count(call: Call) -> int:
    return (len(call.system) + len(call.text)) // CHARACTERS_A_TOKEN


def _check(link: Link) -> None:
    """Asks for the list of models; what has none is not asked further."""
    try:
        names = sorted(str(each["id"]) for each in _asked(link, "GET", "/models")["data"])
    except (LookupError, TypeError):
        return
    if link.params.model not in names:
        raise UserError(f"calls.model = {link.params.model}: {link.url} has {', '.join(names)[:300]}")


def _send(link: Link, call: Call, number: int) -> str:
    reply = _asked(link, "POST", "/chat/completions", _request(call, number, link.params))
    try:
        return written(readable(reply, text, tokens), link.key)
    except ValueError as error:
        raise _unread(link, error) from None


def _request(call: Call, number: int, params: CallParams) -> dict[str, Any]:
    form = {"name": "answer", "strict": True, "schema": call.schema}
    messages = [{"role": "system", "content": call.system}, {"role": "user", "content": call.text}]
    effort = {"reasoning_effort": params.effort} if params.effort else {}
    return {
        "model": params.model,
        "messages": messages,
        "max_tokens": params.max_output_tokens,
        "seed": number,  # so that a repeat is another sample
        "response_format": {"type": "json_schema", "json_schema": form},
    } | effort


def _asked(link: Link, method: str, path: str, body: Any = None) -> Any:
    """The JSON that comes back; None where the server has no such path."""
    try:
        response = link.client.request(method, link.url + path, json=body)
    except httpx2.HTTPError as error:
        raise unreached(error, link.key, link.url) from None
    if response.is_success:
        try:
            return response.json()
        except (ValueError, RecursionError) as error:
            raise _unread(link, error) from None
    said = f"{link.url}: HTTP {response.status_code}: {hidden(response.text, link.key, 300)}"
    if response.status_code == 404 and method == "GET":
        return None
    if response.status_code not in AGAIN and response.status_code < 500:
        raise refused(said, response.status_code, KEY, link.params)
    wait = retry_after(response.headers)
    raise Failed(said, answered=True, perhaps_paid=False, retry_after=wait)


def _unread(link: Link, error: Exception) -> Failed:
    said = f"{link.url}: a reply that cannot be read ({hidden(str(error), link.key, 200)})"
    return Failed(said, answered=True, perhaps_paid=True)
