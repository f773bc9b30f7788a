"""The base in 16 bits beside that in 4 bits, under which QLoRA trains: what the 4 bits alone cost."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from safetensors import safe_open

from storyforge.core.errors import UserError
from storyforge.core.launch import memory_limit
from storyforge.evaluate.losses import Scored, comparison
from storyforge.model.bases import base_dir
from storyforge.model.device import device, precision
from storyforge.model.loading import ModelParams, load_base
from storyforge.model.memory import out_of_memory
from storyforge.model.processes import together

GIB = 1 << 30
ROOM = 2 * GIB  # beside the weights: CUDA itself, what a layer makes of a batch, a chunk of logits


def in_16_bits(
    params: ModelParams, stories: Sequence[Scored], score: Callable[[Any], Mapping[str, float]]
) -> dict[str, Any]:
    """`comparison` of these stories with the base in 16 bits as base; or `not_measured`: why not.

    `score` gives this process's stories their NLLs under a model. The 4-bit base is out of memory by now.
    Every process of a run calls this; none waits for one that fails, and no hour of work before it is lost.
    """
    found, why = {}, _too_large(params) if stories else "no story is held out"
    if not why:
        clear_device_cache(garbage_collection=True)
        try:
            found = dict(score(load_base(_unquantized(params))))
        except (RuntimeError, MemoryError, UserError) as error:
            if not isinstance(error, UserError) and not out_of_memory(error):
                raise
            why = "memory ran out"
    found = together({"stories": found})["stories"]
    if why or len(found) < len(stories):
        return {"not_measured": why or "memory ran out"}
    return comparison([replace(story, base=found[story.id]) for story in stories])


def _unquantized(params: ModelParams) -> ModelParams:
    kind = precision(params)
    return params.model_copy(update={"quantization": "none", "precision": "bf16" if kind == "fp32" else kind})


def _too_large(params: ModelParams) -> str:
    """Why some process's device has no room for it; empty where all have. The same on one kind of machine."""
    here = device()
    total = torch.cuda.get_device_properties(here).total_memory if here.type == "cuda" else memory_limit()
    needed, total = 2 * _numbers(params) + ROOM, min(gather_object([total]))
    return f"it takes {needed / GIB:.1f} GiB, and there are {total / GIB:.1f}" if needed > total else ""


def _numbers(params: ModelParams) -> int:
    """How many numbers the stored weights are."""
    count = 0
    for path in sorted(base_dir(params).glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
