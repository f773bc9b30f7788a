"""The key of a run: what decides its bytes. Work that was left is gone on with only under the same key."""

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from storyforge.core.cache import digest
from storyforge.core.files import dumps
from storyforge.model.bases import base_digest
from storyforge.model.device import machine_class
from storyforge.model.params import ModelParams

PACKAGE = Path(__file__).resolve().parents[1]
OURS = {PACKAGE.name, "__main__"}  # where a process has thousands of modules: half a second for all of them
# Distributions by which the bits of a run are decided; liger's version is in the machine class.
COMPUTING = re.compile(
    "torch|triton|nvidia-.*|bitsandbytes|numpy|transformers|tokenizers|safetensors|accelerate|peft"
)


def run_key(**parts: Any) -> str:
    """What a checkpoint may be resumed under: 16 hex digits of everything that decides the bytes of a run.

    But for how memory made it cut its batches, which shows as it runs: checkpoints hold that themselves.
    """
    return hashlib.sha256(dumps(parts).encode()).hexdigest()[:16]


def sources() -> list[Path]:
    """The files of this package that the process has loaded, the stage's own too: the code of the run."""
    ours = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in OURS]
    loaded = {getattr(module, "__file__", None) for module in ours} - {None}
    return sorted(file for file in map(Path.resolve, map(Path, loaded)) if file.is_relative_to(PACKAGE))


def hashes(files: Iterable[Path], root: Path) -> dict[str, str]:
    """Path below `root` → sha256."""
    return {file.relative_to(root).as_posix(): digest(file) for file in files}


def packages() -> dict[str, str]:
    """Versions of the installed packages that take part in the arithmetic, and of Python.

    Others may come, go and change while a run is interrupted: training goes on where it was.
    """
    named = ((re.sub("[-_.]+", "-", str(found.name)).lower(), found) for found in distributions())
    known = {name: found.version for name, found in named if COMPUTING.fullmatch(name)}
    return known | {"python": sys.version}


def made_from(
    data: Mapping[str, str], model_params: ModelParams, code: Sequence[Path]
) -> dict[str, str | None]:
    """sha256 of what a run is made from: these data, the files of the code, the base."""
    return {**data, **hashes(code, PACKAGE), "base": base_digest(model_params)}


def run_parts(model_params: ModelParams, **parts: Any) -> dict[str, Any]:
    """For `run_key`: `parts`, which are of the stage, and the packages and machine that computed."""
    return {**parts, "packages": packages(), "machine": machine_class(model_params)}
