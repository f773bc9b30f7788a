"""What an export takes of memory and disk, said before it starts; UserError where that cannot be enough."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from storyforge.core.errors import UserError
from storyforge.core.launch import memory_limit
from storyforge.export.merging import empty_base, obstacle
from storyforge.export.shards import SHARD
from storyforge.model.device import DTYPES, device, precision
from storyforge.model.params import NF4, PROCESS, ModelParams

GIB = 1 << 30
DISK = {"f16": 4, "q8_0": 2 + 34 / 32, "lora": 0, "none": 2}  # --type: bytes a weight
REST = 64 << 20  # bytes: tokenizer, configuration, what a file system needs
AT_ONCE = 8  # bytes for each number of the largest weight: as stored, in float32, and rounded
FEWER = "give --stories 0, which measures nothing and still compares each tensor, or take a larger machine"


def required(adapter: Path, to: Path, type: str, params: ModelParams, *, measured: bool) -> Iterator[str]:
    """Lines for a person: what is done in a costly or surprising way, then what is needed and free."""
    model, stored_type = empty_base(params)
    sizes = [weight.numel() for weight in model.parameters()]
    weights, needed = sum(sizes), {}
    if type != "lora":
        if params.quantization != "none":
            yield "trained on the base in 4 bits, the adapter is merged into the base's 16-bit form"
        needed["the files"] = AT_ONCE * max(sizes) + PROCESS
        if whole := obstacle(adapter, params):
            yield f"merged with all of the model in memory: {whole}"
            needed["the files"] = stored_type.itemsize * weights + min(SHARD, 2 * weights) + PROCESS
    free = _free()
    _require(needed.get("the files", 0), free, "merging", "close other programs, or take a larger machine")
    if measured:
        four_bits = type == "lora" and params.quantization == "nf4"
        reading = (NF4 if four_bits else DTYPES[precision(params)].itemsize) * weights
        if (here := device()).type == "cuda":
            _require(reading, torch.cuda.mem_get_info(here)[0], "measuring on the GPU", FEWER)
        else:
            _require(reading, free, "measuring", FEWER)
            needed["measuring"] = reading + PROCESS
    disk = DISK[type] * weights + sum(path.stat().st_size for path in adapter.iterdir()) + REST
    place = next(folder for folder in (to, *to.absolute().parents) if folder.exists())
    room = shutil.disk_usage(place).free
    if room < disk:
        raise UserError(
            f"{to}: {disk / GIB:.1f} GiB are needed and {room / GIB:.1f} are free: "
            "make room, or choose another disk by --to"
        )
    parts = [f"{size / GIB:.1f} GiB for {what}" for what, size in needed.items()]
    memory = f"memory: about {', '.join(parts)}, {free / GIB:.1f} free; " if parts else ""
    yield f"{memory}disk: {disk / GIB:.1f} GiB, {room / GIB:.1f} free"


def _free() -> int:
    """Bytes of memory that can be had without swapping, or that a container allows."""
    return min(psutil.virtual_memory().available, memory_limit())


def _require(size: float, free: int, what: str, remedy: str) -> None:
    if size > free:
        raise UserError(
            f"{what} takes at least {size / GIB:.1f} GiB of memory and {free / GIB:.1f} are free: {remedy}"
        )
