"""The machine a model runs on: its device, the precision it computes in, and what its last bits depend on."""

import os
from typing import Any

import torch
from accelerate import Accelerator

from storyforge.core.errors import UserError
from storyforge.core.workers import processors
from storyforge.engine import kernels
from storyforge.engine.fits import knows
from storyforge.engine.linear import bf16_units
from storyforge.model import cuda
from storyforge.model.bases import described
from storyforge.model.params import ModelParams

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def device() -> torch.device:
    """The accelerator of this machine, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def require_machine(params: ModelParams) -> None:
    """UserError where the params ask for what a GPU alone does well: nothing is replaced in silence.

    A CPU multiplies 4-bit weights too, many times slower; for fp16 it has neither loss scaling nor autocast.
    """
    here = device().type
    asked = [f"model.quantization = {params.quantization}"] * (
        params.quantization == "nf4" and here != "cuda"
    )
    asked += [f"model.precision = {params.precision}"] * (params.precision == "fp16" and here == "cpu")
    if asked and os.environ.get("STORYFORGE_ALLOW_CPU") != "1":
        raise UserError(
            f"params.yaml: {' and '.join(asked)} is for an NVIDIA GPU, and torch finds none here: "
            "`storyforge doctor` says why; STORYFORGE_ALLOW_CPU=1 runs it all the same, many times slower"
        )


def precision(params: ModelParams) -> str:
    """`auto` resolved: bf16 only where the machine computes in it, since emulation is many times slower.

    A CPU does if it has the instructions, or if the engine has kernels for the model, whose description is
    then fetched: they sum in float32, and bfloat16 halves what they read.
    """
    if params.precision != "auto":
        return params.precision
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if device().type == "mps":
        return "bf16"
    plain = params.quantization == "none"
    known = bool(bf16_units()) or (plain and knows(described(params)) and kernels.library() is not None)
    return "bf16" if known else "fp32"


def accelerator(params: ModelParams) -> Accelerator:
    """Device, processes and mixed precision of this run: float32 adapters are multiplied in `precision`."""
    kind = precision(params)
    return Accelerator(cpu=device().type == "cpu", mixed_precision="no" if kind == "fp32" else kind)


def machine_class(params: ModelParams) -> dict[str, Any]:
    """What the last bits of a result depend on besides code, params and data."""
    here, kind = device(), precision(params)
    if here.type == "cuda":
        processor, fused = torch.cuda.get_device_name(), cuda.fused_kernels()
    else:
        # By these torch and oneDNN choose their own kernels.
        processor = " ".join([torch.backends.cpu.get_cpu_capability(), *bf16_units()])
        fused = kernels.identity() if (here.type, kind) == ("cpu", "bf16") else None
    several = int(os.environ.get("WORLD_SIZE", 1))
    return {
        "device": here.type,
        "processor": processor,
        "precision": kind,
        "kernels": fused,
        "threads": params.threads or processors(),
        "torch": torch.__version__,
        # They add their gradients up in an order of their own.
        **({"processes": several} if several > 1 else {}),
    }
