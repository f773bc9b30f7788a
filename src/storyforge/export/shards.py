"""Weights in safetensors files, read and written one tensor at a time: a model of any size in little memory.

The bytes are those of safetensors and transformers, https://huggingface.co/docs/safetensors (Format).
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import safe_open
from torch import Tensor
from tqdm import tqdm
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from storyforge.core.errors import UserError
from storyforge.model.bases import quiet
from storyforge.model.foreign import readable

SHARD = 5 * 10**9  # bytes, as the hub's tools cut
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def stored(folder: Path, single: str = SINGLE) -> dict[str, Path]:
    """The name of each tensor that transformers would read from a folder, and its file."""
    with readable(folder):
        if not (folder / single).is_file() and (folder / INDEX).is_file():
            places = json.loads((folder / INDEX).read_bytes())["weight_map"]
            return {name: folder / file for name, file in places.items()}
        with safe_open(folder / single, "pt") as file:
            return dict.fromkeys(file.keys(), folder / single)


def tensor(path: Path, name: str) -> Tensor:
    """UserError for a number that is not finite.

    The file is opened for this one alone: what was read of it counts as memory until it is closed.
    """
    with readable(path), safe_open(path, "pt") as file:
        found = file.get_tensor(name)
    if not found.isfinite().all():
        raise UserError(f"{path}: {name} holds a number that is not finite: fetch it or make it again")
    return found


def empty(config: PretrainedConfig) -> PreTrainedModel:
    """A model of shapes without weights (meta)."""
    with quiet(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def write(folder: Path, like: Mapping[str, Tensor], made: Callable[[str], Tensor]) -> None:
    """What `made` gives for each name, of the shape and type of `like`, which has no weights (meta)."""
    split = split_state_dict_into_shards_factory(
        dict(like),
        get_storage_size=lambda each: each.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=SHARD,
    )
    with tqdm(total=len(like), desc="merging", unit=" tensors", disable=None, leave=False) as bar:
        for file, names in split.filename_to_tensors.items():
            _write_one(folder / file, {name: like[name] for name in names}, made, bar)
    if split.is_sharded:
        count = sum(each.numel() for each in like.values())
        index = {"metadata": {"total_parameters": count, **split.metadata}}
        index["weight_map"] = split.tensor_to_filename
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_one(path: Path, like: Mapping[str, Tensor], made: Callable[[str], Tensor], bar: tqdm) -> None:
    header, end = {"__metadata__": {"format": "pt"}}, 0
    names = sorted(like, key=lambda name: (-like[name].itemsize, name))
    for name in names:
        start, end = end, end + like[name].nbytes
        kind, shape = TYPES[like[name].dtype], list(like[name].shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            weight = made(name)
            assert (weight.dtype, weight.shape) == (like[name].dtype, like[name].shape), name
            file.write(memoryview(weight.contiguous().flatten().view(torch.uint8).numpy()))
            bar.update()
