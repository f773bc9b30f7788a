"""Files of a model or an adapter that others wrote: what they may hold, and one line where they may not."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import safe_open
from torch import Tensor

from storyforge.core.errors import UserError
from storyforge.core.files import read_json

# Keys by which transformers runs code that came with a model, or fetches some.
CODE = re.compile(r"auto_map|_?(attn|experts)_implementation(_internal)?")
# Of an adapter's configuration: what may have any value. PEFT applies it and can disable it again.
ANY = frozenset(
    "alpha_pattern auto_mapping base_model_name_or_path ensure_weight_tying exclude_modules fan_in_fan_out "
    "inference_mode layers_pattern layers_to_transform lora_alpha lora_bias lora_dropout modules_to_save "
    "peft_version r rank_pattern revision target_modules trainable_token_indices use_dora use_rslora".split()
)
REQUIRED = ("peft_type", "r", "lora_alpha", "target_modules")
# These leave the base as it is; pissa, olora, corda, loftq and others subtract from its weights.
INITIAL = (True, False, "gaussian", "eva", "orthogonal")
SHOWN = 300  # characters of a library's message


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Whatever a library raises over the files at `path` becomes a UserError; a lack of memory does not."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:SHOWN] or type(error).__name__
        raise UserError(f"{path}: cannot be read: {said}: fetch it or make it again") from error


def tensors(path: Path) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of a safetensors file, one at a time; UserError for a number that is not finite."""
    with readable(path), safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is no mapping
            tensor = file.get_tensor(name)
            wide = tensor.float() if tensor.itemsize == 1 else tensor  # torch has no isfinite for 8 bits
            if tensor.is_floating_point() and not wide.isfinite().all():
                raise UserError(
                    f"{path}: {name} holds a number that is not finite: fetch it or make it again"
                )
            yield name, tensor


def tensor_count(folder: Path) -> int:
    """How many tensors its safetensors files hold; UserError where there is none."""
    count, paths = 0, sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{folder}: holds no *.safetensors file: choose a model that has some")
    for path in paths:
        with readable(path), safe_open(path, "pt") as file:
            count += len(file.keys())
    return count


def require_same(path: Path, differences: Mapping[str, Collection]) -> None:
    """UserError names the tensors that are missing, unexpected or of another shape than the model's."""
    found = [
        f"{kind} {', '.join(sorted(map(str, names))[:3])}" for kind, names in differences.items() if names
    ]
    if found:
        count = sum(map(len, differences.values()))
        raise UserError(f"{path}: {count} tensors are not what the model has: {'; '.join(found)}")


def require_no_code(folder: Path) -> None:
    """UserError where a configuration, at any depth, names code to run."""
    for path in sorted(folder.glob("*config.json")):
        keys: set[str] = set()
        with readable(path):
            json.loads(path.read_bytes(), object_hook=keys.update)
        if code := sorted(filter(CODE.fullmatch, keys)):
            raise UserError(
                f"{path} holds '{code[0]}', which may run foreign code: remove it or choose another"
            )


def lora_config(path: Path) -> LoraConfig:
    """What adapter_config.json says; UserError where the base could not be read beside such an adapter."""
    usual = LoraConfig(task_type="CAUSAL_LM").to_dict()
    with readable(path):
        given: dict[str, Any] = read_json(path)
        if not isinstance(given, dict):
            raise UserError(f"{path}: is no JSON object: run `dvc repro`, or give a whole adapter")
        if absent := [key for key in REQUIRED if given.get(key) is None]:
            raise UserError(f"{path}: says no {absent[0]}: PEFT would take its own")
        for key, value in given.items():
            known = INITIAL if key == "init_lora_weights" else (None, False, [], {}, usual.get(key))
            if key not in ANY and value not in known:
                raise UserError(
                    f"{path}: {key} = {value!r:.80} is not supported: only LoRA on an unchanged base"
                )
        return LoraConfig(
            **{key: value for key, value in given.items() if key in usual} | {"inference_mode": True}
        )
