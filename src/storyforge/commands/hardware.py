"""What a training job would take on common machines, and where each rate comes from.

All rates are of Llama 3.1 8B: 7.50 billion weights that a token is multiplied with, 4 FLOP each to train an
adapter (forward, and back to the input), 6 where activations are computed again instead of kept. For another
model they are scaled by its weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

LLAMA_3_1_8B = 7_504_658_432
SAME_SIZE = 0.1  # so near to it, a published rate still is what was published
SMALL = 1_000_000_000  # weights; with fewer a GPU waits for the program that feeds it
ROOM = 0.5  # of a machine's memory for the weights; the rest is for what training adds
BYTES = {"LoRA": 2.0, "QLoRA": 0.55}  # a weight
GIB = 1 << 30
TORCHTUNE = "torchtune's README: 2,048-token rows, 2 at once, compiled"

Known = Literal["measured", "published", "derived"]
Method = Literal["LoRA", "QLoRA"]  # on 16-bit weights, or on NF4


@dataclass(frozen=True, slots=True)
class Rate:
    tokens_per_second: float
    known: Known
    source: str


@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    memory_gib: int
    rates: dict[Method, Rate]


@dataclass(frozen=True, slots=True)
class Forecast:
    """How a machine would do a job; no rate where it cannot hold the model."""

    machine: str
    memory_gib: int | None
    method: Method | None
    rate: Rate | None
    hours: float | None
    at_best: bool  # the rate is the most it could be


MACHINES = (
    Machine(
        "T4",
        16,
        {
            "LoRA": Rate(758, "derived", "35 % of 65 TFLOP/s in fp16, 4 FLOP a weight"),
            "QLoRA": Rate(505, "derived", "35 % of 65 TFLOP/s in fp16, 6 FLOP a weight"),
        },
    ),
    Machine(
        "RTX 4090",
        24,
        {
            "LoRA": Rate(3_083, "published", TORCHTUNE),
            "QLoRA": Rate(2_413, "published", TORCHTUNE),
        },
    ),
    Machine(
        "A100",
        80,
        {
            "LoRA": Rate(3_514, "derived", "8,210 tokens/s with 3.21 billion weights, torchtune's README"),
            "QLoRA": Rate(3_440, "derived", "8,035 tokens/s with 3.21 billion weights, torchtune's README"),
        },
    ),
    Machine(
        "H100",
        80,
        {
            "LoRA": Rate(14_800, "derived", "45 % of 989 TFLOP/s in bf16, 4 FLOP a weight"),
            "QLoRA": Rate(11_600, "derived", "as LoRA, 1.28 times slower as on torchtune's RTX 4090"),
        },
    ),
    Machine(
        "Mac M4",
        32,
        {"LoRA": Rate(37, "derived", "60 % of 2.78 TFLOP/s, an M4's bf16 products in MLX, 6 FLOP a weight")},
    ),
)


def forecasts(parameters: int, tokens: float, quantized: bool) -> Iterator[Forecast]:
    """Each machine for a model of so many multiplied weights and so many tokens to train on."""
    for machine in MACHINES:
        method = _method(machine, parameters, quantized)
        rate = scaled(machine.rates[method], parameters) if method else None
        hours = tokens / rate.tokens_per_second / 3600 if rate else None
        yield Forecast(machine.name, machine.memory_gib, method, rate, hours, parameters < SMALL)


def scaled(rate: Rate, parameters: int) -> Rate:
    """A rate of the 8B model, for a model of other size."""
    share = LLAMA_3_1_8B / parameters
    if abs(share - 1) <= SAME_SIZE:
        return replace(rate, tokens_per_second=rate.tokens_per_second * share)
    source = (
        f"scaled from {rate.tokens_per_second:,.0f} tokens/s of an 8B model ({rate.known}: {rate.source})"
    )
    return Rate(rate.tokens_per_second * share, "derived", source)


def _method(machine: Machine, parameters: int, quantized: bool) -> Method | None:
    """What the params ask for where the machine can do it; else the first whose weights leave room."""
    wished: list[Method] = ["QLoRA", "LoRA"] if quantized else ["LoRA", "QLoRA"]
    for method in wished:
        if method in machine.rates and BYTES[method] * parameters <= ROOM * machine.memory_gib * GIB:
            return method
    return None
