"""What one run of calls works with, and what of it the store already holds."""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from storyforge.core.errors import UserError
from storyforge.core.files import dumps
from storyforge.judging.money import cost
from storyforge.judging.params import CallParams
from storyforge.judging.retries import Pause
from storyforge.judging.service import Call, Failed, Service
from storyforge.judging.store import Store


@dataclass(frozen=True)
class Work:
    provider: ModuleType  # claude or compatible
    params: CallParams
    service: Service
    kept: Store
    pause: Pause
    keys: frozenset[str]  # of all calls of the run, repeats included
    rate: float  # tokens a character

    @property
    def batched(self) -> bool:
        return self.params.batch and self.service.batch is not None


def numbered_keys(call: Call, provider: ModuleType, params: CallParams) -> Iterator[tuple[int, str]]:
    """Number and store key of a call, then of the one that is sent where the first reply is unusable."""
    for number in (2 * call.repeat, 2 * call.repeat + 1):
        parts = (provider.identity(params), params.model, call.system, call.schema, params.effort)
        yield number, hashlib.sha256(dumps([*parts, call.text, number]).encode()).hexdigest()


def committed(keys: Collection[str], kept: Store, provider: ModuleType, params: CallParams) -> float:
    """Dollars for the replies to these calls, and at most for their requests whose end is not known."""
    replies = filter(None, map(kept.reply, sorted(keys)))
    paid = sum(cost(provider.tokens(reply), params.price, batched=batched) for reply, batched in replies)
    return paid + sum(dollars for key, dollars, _ in kept.unsettled() if key in keys)


@contextmanager
def noted(kept: Store, dollars: Mapping[str, float]) -> Iterator[list[int]]:
    """The rows of requests that are sent inside; they go where it is certain that nothing was paid."""
    requests = kept.intend(dollars)
    try:
        yield requests
    except Failed as failed:
        if not failed.perhaps_paid:
            kept.forget(requests)
        raise
    except UserError:
        kept.forget(requests)
        raise
