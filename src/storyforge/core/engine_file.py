"""engine.yaml: who computes, and on how much of this machine.

That is a fact of the machine and no choice of a run: git ignores the file, no stage depends on it, and to
change it makes nothing stale.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from storyforge.core.files import read_yaml
from storyforge.core.params import Slice, validated
from storyforge.core.storage import BUCKET
from storyforge.core.workers import processors

NAME = "engine.yaml"
URL = re.compile(r"\w+:/|s3:", re.IGNORECASE)  # s3:/ is no folder, either: one would be made in the clone
Count = Annotated[int, Field(gt=0, strict=True)]


class Engine(Slice):
    """All of the file; without one the defaults."""

    kind: Literal["local", "ray"] = "local"  # who runs tasks: processes of this machine, or Ray
    workers: Count | None = None  # tasks at a time; None: a task a processor
    address: str | None = None  # HOST:PORT of Ray's head; None: $RAY_ADDRESS, else the Ray of this machine
    work: str | None = None  # a folder that all nodes see, or s3://BUCKET/PREFIX; None: the clone
    gpus: Count | None = None  # that train and evaluate, a process each; None: all that are visible

    @field_validator("work")
    @classmethod
    def _is_a_place(cls, work: str | None) -> str | None:
        if not work or not URL.match(work):
            return work
        if not BUCKET.fullmatch(work := work.rstrip("/")):
            raise ValueError("give a folder that all nodes see, or s3://BUCKET/PREFIX")
        return work

    @property
    def processes(self) -> int | None:
        """How many of this machine run tasks; None where Ray decides."""
        return None if self.kind == "ray" else self.workers or processors()


def engine() -> Engine:
    """What the file says, else the defaults; UserError names file, key and value."""
    path = _file()
    return validated(Engine, (read_yaml(path) if path else None) or {}, path or Path(NAME))


def _file() -> Path | None:
    """Beside the main repository's .dvc, which DVC names in temporary experiments too; else here or above."""
    root = os.environ.get("DVC_ROOT")
    folders = [Path(root)] if root else [Path.cwd(), *Path.cwd().parents]
    return next((folder / NAME for folder in folders if (folder / NAME).is_file()), None)
