"""What params.yaml says of training on pairs; importing this loads no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from storyforge.core.params import Params, Slice
from storyforge.train.schedule import LoopParams, Share


class SftParams(Slice):
    kind: Literal["sft"]
    human_share: Annotated[float, Field(ge=0, lt=1)]  # of the items; the others are accepted revisions


class DpoParams(Slice):
    kind: Literal["dpo"]
    beta: PositiveFloat
    nll: NonNegativeFloat  # × NLL a chosen token, added to the loss


class SimpoParams(Slice):
    kind: Literal["simpo"]
    beta: PositiveFloat
    gamma: NonNegativeFloat


class GuardParams(Slice):
    """What ends a run; None: off. In nats a token, since the tuned writer."""

    max_loss_rise: NonNegativeFloat | None  # of validation stories
    max_chosen_fall: NonNegativeFloat | None  # of the chosen texts' log-likelihood, on held-out pairs
    max_end_rise: NonNegativeFloat | None  # of the NLL of validation stories' end tokens
    min_distinct_2: Share | None  # mean of drafts, as a share of the human texts that have less


class AlignParams(LoopParams, Params):
    section: ClassVar[str] = "align"
    objective: Annotated[SftParams | DpoParams | SimpoParams, Field(discriminator="kind")]
    guards: GuardParams
