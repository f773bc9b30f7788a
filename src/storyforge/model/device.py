"""The machine a model runs on: its device, the precision it computes in, and what its last bits depend on."""

import os
from typing import Annotated, Any, ClassVar, Literal

import torch
from accelerate import Accelerator
from pydantic import Field, PositiveInt

from storyforge.core.assets import Origin
from storyforge.core.params import Params
from storyforge.engine import kernels
from storyforge.model import cuda

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


class ModelParams(Params):
    section: ClassVar[str] = "model"
    name: str
    origin: Origin
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    chat: Literal["smollm2", "llama3"]
    system: str
    precision: Literal["auto", "bf16", "fp16", "fp32"]
    quantization: Literal["none", "nf4"]
    attention: Literal["auto", "eager", "sdpa"]
    threads: PositiveInt | None


def device() -> torch.device:
    """The accelerator of this machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def precision(params: ModelParams) -> str:
    """`auto` resolved: bf16 only where the machine computes in it, since emulation is many times slower."""
    if params.precision != "auto":
        return params.precision
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device().type == "mps":
        return "bf16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def accelerator(params: ModelParams) -> Accelerator:
    """Device, processes and mixed precision of this run: float32 adapters are multiplied in `precision`."""
    kind = precision(params)
    return Accelerator(cpu=device().type == "cpu", mixed_precision="no" if kind == "fp32" else kind)


def machine_class(params: ModelParams) -> dict[str, Any]:
    """What the last bits of a result depend on besides code, params and data."""
    here = device()
    name = torch.cuda.get_device_name() if here.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    return {
        "device": here.type,
        "processor": name,
        "precision": precision(params),
        "kernels": kernels.identity() if here.type == "cpu" else cuda.fused_kernels(),
        "threads": params.threads or os.cpu_count(),
        "torch": torch.__version__,
    }
