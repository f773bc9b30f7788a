"""Answers to calls: from the store, or from a service, asked once and within the money.

`ask` sends what the store does not hold. A call whose reply is no answer (refused, cut short, no JSON, of
another shape) is sent once more; where that brings none either, the answer is missing, and never made up.
"""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from storyforge.core.errors import UserError
from storyforge.core.files import dumps
from storyforge.judging import claude, compatible
from storyforge.judging.batches import in_batches, under_way
from storyforge.judging.money import Purse, at_most, cost, expected, tokens_a_character
from storyforge.judging.params import CallParams
from storyforge.judging.retries import Pause, Stopped, persist
from storyforge.judging.service import Call, Due, Failed, Service, Tokens, Unusable
from storyforge.judging.store import Store, opened
from storyforge.judging.work import Work, committed, noted, numbered_keys

PROVIDERS = {"anthropic": claude, "openai": compatible}
BARREN = 3  # batches in a row without one reply


class Answer(NamedTuple):
    """What was asked for; or why there is none: json, schema, or how the reply stopped (refusal …)."""

    value: dict[str, Any] | None
    why: str | None = None


def ask(
    calls: Sequence[Call],
    *,
    provider: Literal["anthropic", "openai"],
    params: CallParams,
    validate: Callable[[dict], None],
    store: Path,
    say: Callable[[str], None] = print,
) -> list[Answer]:
    """An answer to each call; `validate` raises ValueError for a reply of another shape or range.

    A run that was killed goes on where it was: what the store holds is not sent again, and needs no key.
    UserError before anything is paid: no SDK, key, server or model of that name; dearer than `max_dollars`.
    """
    module, pause = PROVIDERS[provider], Pause(params.max_wait_s)
    if not calls:
        return []
    service = None if store.exists() else _connected(module, params, pause)
    with opened(store) as kept:
        read = partial(_read, kept=kept, provider=module, params=params, validate=validate)
        if due := _due(calls, read):
            service = service or _connected(module, params, pause)
            keys = frozenset(key for call in calls for _, key in numbered_keys(call, module, params))
            rate = tokens_a_character(due, service, pause) if params.price else 0.0
            work = Work(module, params, service, kept, pause, keys, rate)
            for warning in module.warnings(params):
                say(f"warning: {warning}")
            _require_money(work, due, say)
            _finish(work, calls, read)
        return [read(call)[0] for call in calls]


def _connected(provider: ModuleType, params: CallParams, pause: Pause) -> Service:
    """The service, which answers: one that is busy is waited for, one that is not there is not."""
    service = provider.connect(params)
    try:
        service.check()
    except Failed as failed:
        if not failed.answered:
            raise UserError(f"{failed}: check calls.base_url and the network") from None
        persist(service.check, pause, params.model)
    return service


def _read(
    call: Call, *, kept: Store, provider: ModuleType, params: CallParams, validate: Callable[[dict], None]
) -> tuple[Answer, tuple[str, int] | None]:
    """What the store has for a call, and the key and number to send, if there are any left to try."""
    answer = Answer(None)
    for number, key in numbered_keys(call, provider, params):
        if (found := kept.reply(key)) is None:
            return answer, (key, number)
        answer = _interpreted(found[0], provider, call.schema, validate)
        if answer.value is not None:
            break
    return answer, None


def _interpreted(reply: dict, provider: ModuleType, schema: dict, validate: Callable[[dict], None]) -> Answer:
    try:
        text = provider.text(reply)
    except Unusable as unusable:
        return Answer(None, str(unusable))
    try:
        value = json.loads(text)
        dumps(value).encode()  # no NaN, no half of a character
    except (ValueError, RecursionError):
        return Answer(None, "json")
    try:
        if not isinstance(value, dict) or not _has_fields(value, schema):
            raise ValueError("no object of these fields")
        validate(value)
    except ValueError:
        return Answer(None, "schema")
    return Answer(value)


def _has_fields(value: Any, schema: dict) -> bool:
    """Whether every object has the fields that its schema has: not every server sees to that."""
    if (fields := schema.get("properties")) is None:
        return True
    same = isinstance(value, dict) and value.keys() == fields.keys()
    return same and all(_has_fields(value[name], fields[name]) for name in fields)


def _due(calls: Sequence[Call], read: Callable) -> Due:
    left = ((call, read(call)[1]) for call in calls)
    return {key_number[0]: (call, key_number[1]) for call, key_number in left if key_number}


def _require_money(work: Work, due: Due, say: Callable[[str], None]) -> None:
    """Says what the calls will cost; UserError where that is too much, or would be with what is spent."""
    params = work.params
    waiting = {key for rows in work.kept.batches().values() for key in rows}
    unsent = {key: each for key, each in due.items() if key not in waiting}
    spent = committed(work.keys, work.kept, work.provider, params)
    estimate = expected(unsent, work.rate, params, batched=work.batched)
    how = " in batches" if work.batched else ""
    before = f", after ${spent:.2f} spent or set aside" if spent else ""
    price = f"about ${estimate:.2f}" if params.price else "no price is known"
    limit = f"calls.max_dollars = {params.max_dollars:g}"
    what = f"{len(unsent):,} calls of {params.model}{how}: {price}{before}"
    say(f"{what}; {limit}")
    if unsent and spent + estimate > params.max_dollars:
        raise UserError(f"{limit} is not enough for {what}: raise it, or ask for fewer")


def _finish(work: Work, calls: Sequence[Call], read: Callable) -> None:
    """Until the store holds all that can be had."""
    barren = 0
    while due := _due(calls, read):
        send = in_batches if work.batched or under_way(work, due) else _directly
        barren = 0 if send(work, due) else barren + 1
        if barren == BARREN:
            raise UserError(f"{len(due):,} calls expired or failed in {BARREN} batches: run again later")


def _directly(work: Work, due: Due) -> int:
    """Sends all, `workers` at a time, and returns how many; an error ends it once those under way replied."""
    purse = Purse(work.params.max_dollars, committed(work.keys, work.kept, work.provider, work.params))
    with ThreadPoolExecutor(work.params.workers) as pool:
        sent = [pool.submit(_one, work, purse, key, *each) for key, each in due.items()]
        try:
            for future in tqdm(as_completed(sent), total=len(sent), desc="calls", disable=None):
                with suppress(Stopped):  # the error that stopped it is another's
                    future.result()
        except BaseException:
            work.pause.stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return len(sent)


def _one(work: Work, purse: Purse, key: str, call: Call, number: int) -> None:
    try:
        persist(lambda: _sent(work, purse, key, call, number), work.pause, key)
    except Exception:
        work.pause.stopped.set()  # here, before this worker begins another call
        raise


def _sent(work: Work, purse: Purse, key: str, call: Call, number: int) -> None:
    """One request; its reply is in the store before anything else happens with it."""
    most = purse.take(at_most(call, work.rate, work.params, batched=False))
    paid = 0.0
    try:
        work.pause.wait()  # it may have begun while there was no money free
        try:
            with noted(work.kept, {key: most}) as requests:
                reply = work.service.send(call, number)
        except Failed as failed:
            paid = most if failed.perhaps_paid else 0.0
            raise
        paid = most
        work.kept.keep(key, reply, requests=requests, batched=False)
        paid = cost(work.provider.tokens(json.loads(reply)), work.params.price, batched=False)
    finally:
        purse.settle(most, paid)


def usage(calls: Sequence[Call], *, provider: str, params: CallParams, store: Path) -> dict[str, Any]:
    """Replies paid for, tokens and dollars, in all and by label; `warnings` of the model.

    `unsettled`: requests whose end is not known, since the run was killed or the time was up. They may have
    been paid for, and are in no other figure; kills and time-outs change this one.
    """
    module = PROVIDERS[provider]
    keys = {key: call.label for call in calls for _, key in numbered_keys(call, module, params)}
    by_label: dict[str, list[tuple[Tokens, float]]] = {label: [] for label in sorted(set(keys.values()))}
    unsettled = 0
    if store.exists():
        with opened(store) as kept:
            unsettled = sum(key in keys and batch is None for key, _, batch in kept.unsettled())
            for key, label in sorted(keys.items()):
                if found := kept.reply(key):
                    tokens = module.tokens(found[0])
                    by_label[label].append((tokens, cost(tokens, params.price, batched=found[1])))
    return {
        "model": params.model,
        **_total([each for rows in by_label.values() for each in rows]),
        "unsettled": unsettled,
        "by_label": {label: _total(rows) for label, rows in by_label.items()},
        "warnings": module.warnings(params),
    }


def _total(rows: list[tuple[Tokens, float]]) -> dict[str, float]:
    sums = {f"{name}_tokens": sum(getattr(tokens, name) for tokens, _ in rows) for name in Tokens._fields}
    return {"calls": len(rows), **sums, "dollars": round(sum(dollars for _, dollars in rows), 4)}
