"""What is trained on when: the choices of a run, the stories of each step, and its learning rate."""

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from storyforge.core.choice import rank
from storyforge.core.params import Slice

if TYPE_CHECKING:  # torch comes with it
    from storyforge.model.encoding import Encoded

Share = Annotated[float, Field(ge=0, le=1)]


class LoopParams(Slice):
    section: ClassVar[str] = "train"  # as errors name it
    seed: NonNegativeInt
    epochs: PositiveInt
    max_steps: PositiveInt | None  # an earlier end; the schedule is laid over what is really trained
    batch_stories: PositiveInt
    max_tokens: PositiveInt
    micro_batch_tokens: PositiveInt
    learning_rate: PositiveFloat
    schedule: Literal["constant", "linear", "cosine"]
    warmup_share: Share
    weight_decay: NonNegativeFloat
    max_gradient_norm: PositiveFloat | None
    gradient_checkpointing: NonNegativeInt  # every n-th layer's activations are computed again; true: 1
    validate_every: PositiveInt
    validation_stories: PositiveInt | None
    patience: PositiveInt | None
    checkpoint_every: PositiveInt


def batches(train: "Sequence[Encoded]", params: LoopParams) -> "list[list[Encoded]]":
    """The global batch of every step: each epoch a new order, drawn from the seed and the epoch alone."""
    steps = []
    for epoch in range(params.epochs):
        order = sorted(train, key=lambda row: row.id)
        random.Random(f"{params.seed}:{epoch}").shuffle(order)
        steps += [order[at : at + params.batch_stories] for at in range(0, len(order), params.batch_stories)]
    return steps[: params.max_steps]


def steps(stories: int, params: LoopParams) -> tuple[int, int]:
    """How many `batches` there are of so many stories, and how many there would be without `max_steps`."""
    whole = params.epochs * math.ceil(stories / params.batch_stories)
    return min(whole, params.max_steps or whole), whole


def validated(val: "Sequence[Encoded]", params: LoopParams) -> "list[Encoded]":
    """The stories whose loss is measured while training: the same in whatever order `val` comes."""
    return sorted(val, key=lambda row: rank(row.id, params.seed))[: params.validation_stories]


def learning_rate(step: int, steps: int, params: LoopParams) -> float:
    """The rate of `step` (from 0): a linear warm-up, then the schedule down to zero after the last step."""
    warmup = math.ceil(params.warmup_share * steps)
    if step < warmup:
        return params.learning_rate * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, steps - warmup)
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return params.learning_rate * decay[params.schedule]
