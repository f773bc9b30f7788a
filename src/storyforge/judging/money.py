"""What calls cost: a price for tokens, an estimate before the first, and a purse that none overdraws."""

import threading
from collections.abc import Mapping

from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.judging.params import CallParams, Price
from storyforge.judging.retries import Pause, persist
from storyforge.judging.service import Call, Due, Service, Tokens

SAMPLE = 8  # calls whose tokens the service counts, which costs nothing
MILLION = 1_000_000


def cost(tokens: Tokens, price: Price | None, *, batched: bool) -> float:
    """Dollars; a model without a price costs nothing."""
    if price is None:
        return 0.0
    prices = (price.input, price.output, price.cache_read, price.cache_write)
    share = price.batch if batched else 1.0
    return share * sum(n * each for n, each in zip(tokens, prices, strict=True)) / MILLION


def tokens_a_character(due: Due, service: Service, pause: Pause) -> float:
    """Of a sample of the calls, chosen by their keys."""
    sample = sorted(due, key=lambda key: rank(key, 0))[:SAMPLE]
    calls = [due[key][0] for key in sample]
    counted = sum(persist(lambda call=call: service.count(call), pause, call.text) for call in calls)
    return counted / max(1, sum(map(_characters, calls)))


def at_most(call: Call, rate: float, params: CallParams, *, batched: bool) -> float:
    """Dollars of one call that writes all its input to the cache and uses all the output it may."""
    if params.price is None:
        return 0.0
    tokens = Tokens(output=params.max_output_tokens, cache_write=rate * _characters(call))
    dearest = max(params.price.input, params.price.cache_write)
    return cost(tokens, params.price.model_copy(update={"cache_write": dearest}), batched=batched)


def expected(due: Due, rate: float, params: CallParams, *, batched: bool) -> float:
    """Dollars for all of them, as `expected_output_tokens` says and without the cache."""
    tokens = Tokens(
        input=rate * sum(_characters(call) for call, _ in due.values()),
        output=len(due) * params.expected_output_tokens,
    )
    return cost(tokens, params.price, batched=batched)


class Purse:
    """What is spent, or may be by the requests under way: never above the limit."""

    def __init__(self, limit: float, committed: float):
        self.limit, self.committed = limit, committed
        self.under_way, self.changed = 0, threading.Condition()

    def take(self, dollars: float) -> float:
        """Set them aside for a request, if need be once others cost less than they might have."""
        with self.changed:
            while self.committed + dollars > self.limit and self.under_way:
                self.changed.wait()
            if self.committed + dollars > self.limit:
                raise spent(self.committed, self.limit)
            self.committed += dollars
            self.under_way += 1
        return dollars

    def settle(self, taken: float, paid: float) -> None:
        with self.changed:
            self.committed += paid - taken
            self.under_way -= 1
            self.changed.notify_all()


def affordable(dollars: Mapping[str, float], committed: float, limit: float) -> dict[str, float]:
    """The first of these that the limit allows together; UserError where it is not even one."""
    found, total = {}, committed
    for key, each in dollars.items():
        if (total := total + each) > limit:
            break
        found[key] = each
    if not found:
        raise spent(committed, limit)
    return found


def spent(committed: float, limit: float) -> UserError:
    return UserError(
        f"calls.max_dollars = {limit:g}: ${committed:.4f} are spent or set aside, and the next call may cost "
        "more than is left: raise it and run again; what was answered is kept"
    )


def _characters(call: Call) -> int:
    return len(call.system) + len(call.text)
