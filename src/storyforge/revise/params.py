"""What params.yaml may say of the drafts, of their critic and of the pairs made of them."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from storyforge.core.params import Params
from storyforge.judging.params import CallParams

Share = Annotated[float, Field(ge=0, le=1)]


class ServiceParams(CallParams):
    provider: Literal["anthropic", "openai"]


class ReviseParams(Params):
    section: ClassVar[str] = "revise"
    seed: NonNegativeInt
    prompts: NonNegativeInt
    drafts: PositiveInt
    max_new_tokens: PositiveInt
    critic: Literal["checks", "model", "api"]
    pairs: Literal["drafts", "human"]
    pairs_per_prompt: PositiveInt
    min_gap: Share
    slack: Share
    length_band: Share
    overlap: tuple[Share, Share]
    rounds: PositiveInt
    min_pairs: PositiveInt
    calls: ServiceParams | None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.critic == "api" and self.calls is None:
            raise ValueError(
                "critic: api needs `calls`: as judge.calls, with `provider: anthropic` or openai"
            )
        if (self.critic, self.pairs) == ("checks", "drafts") and self.prompts and self.drafts < 2:
            raise ValueError("critic: checks compares the drafts of a prompt: set drafts to 2 or more")
        if self.overlap[0] > self.overlap[1]:
            raise ValueError("overlap: the lower bound comes first")
        return self
