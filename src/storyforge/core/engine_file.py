"""engine.yaml: how much of this machine a run takes. A fact of the machine and no choice of a run, so git
ignores it, no stage depends on it, and to change it makes nothing stale."""

import os
from pathlib import Path

from pydantic import PositiveInt, ValidationError

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml
from storyforge.core.params import SHORT, Slice

NAME = "engine.yaml"


class Engine(Slice, extra="ignore"):  # its other keys have readers of their own
    gpus: PositiveInt | None = None  # that train and evaluate, a process each; None: all that are visible


def engine() -> Engine:
    """What the file says, else the defaults; UserError names file, key and value."""
    path = _file()
    found = (read_yaml(path) if path else None) or {}
    try:
        return Engine.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{name} = " for name in first["loc"])
        raise UserError(f"{path}: {key}{SHORT.repr(first['input'])}: {first['msg']}") from None


def _file() -> Path | None:
    """Beside the main repository's .dvc, which DVC names in temporary experiments too; else here or above."""
    root = os.environ.get("DVC_ROOT")
    folders = [Path(root)] if root else [Path.cwd(), *Path.cwd().parents]
    return next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
