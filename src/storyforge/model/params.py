"""What params.yaml may say of the base model and of the adapter on it; importing this loads no torch."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from storyforge.core.origins import Origin
from storyforge.core.params import Params, Slice

# What memory is foretold from, in bytes.
PROCESS = 1 << 30  # Python, torch and its libraries
NF4 = 0.55  # a weight, with its scales (Dettmers et al. 2023: 4.1 bits, and what is not quantised)


class ModelParams(Params):
    section: ClassVar[str] = "model"
    name: str
    origin: Origin
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    chat: Literal["auto", "smollm2", "llama3"]  # auto: as the model's own chat template
    system: str
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    quantization: Literal["none", "nf4"]
    attention: Literal["auto", "eager", "sdpa"]
    threads: PositiveInt | None


class LoraParams(Slice):
    r: PositiveInt
    alpha: PositiveInt
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Literal["all-linear"] | tuple[str, ...]
