"""What `calls` of a section of params.yaml may say, and what tokens cost."""

from typing import Literal

from pydantic import Field

from storyforge.core.params import Slice


class Price(Slice):
    """Dollars a million tokens; `batch` multiplies all of them in a message batch."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_read: float = Field(ge=0)
    cache_write: float = Field(ge=0)
    batch: float = Field(0.5, ge=0)


# Anthropic's price list of 2026-11, the cache for five minutes.
PRICES = {
    "claude-opus-5-5": Price(input=4, output=20, cache_read=0.2, cache_write=5),
    "claude-sonnet-5-5": Price(input=2, output=10, cache_read=0.1, cache_write=2.5),
    "claude-haiku-5-5": Price(input=0.1, output=0.5, cache_read=0.01, cache_write=0.125),
    "claude-fable-5-1": Price(input=10, output=50, cache_read=1, cache_write=12.5),
}


class CallParams(Slice):
    model: str = Field(min_length=1)
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None  # None: the model's own
    base_url: str | None  # None: Anthropic's
    max_dollars: float = Field(ge=0)  # of one set of calls, over all runs that it takes
    batch: bool  # message batches at half the price, within a day; `anthropic` alone has them
    workers: int = Field(ge=1, le=64)  # calls at a time without batches
    max_wait_s: float = Field(120, gt=0)  # before a request is repeated, whatever the server asks for
    timeout_s: float = Field(600, gt=0)  # of one request; it may be paid for all the same
    max_output_tokens: int = Field(4000, ge=1)  # thinking included
    expected_output_tokens: int = Field(1700, ge=1)  # of a reply, for the estimate
    repeats: int = Field(0, ge=0)  # how often a sample is asked again, for self-consistency
    prices: dict[str, Price] = {}  # of models that are not in PRICES, or cost something else

    @property
    def price(self) -> Price | None:
        return self.prices.get(self.model) or PRICES.get(self.model)
