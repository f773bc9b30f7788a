"""`Params`: one validated section of params.yaml."""

from pathlib import Path
from reprlib import Repr
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml

PARAMS = Path("params.yaml")
SHORT = Repr()  # of a value in a message
SHORT.maxstring = SHORT.maxother = 80


class Slice(BaseModel):
    """A group of params: unknown keys, infinity and nan are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Params(Slice):
    """A top-level section of params.yaml; subclasses name it and list its fields."""

    section: ClassVar[str]
    if_unknown: ClassVar[str] = ""  # what the error for an unknown key of the section adds

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """Read this section; UserError names file, key and value."""
        sections = read_yaml(path)
        if not isinstance(sections, dict) or cls.section not in sections:
            raise UserError(f"{path}: section '{cls.section}' is missing: compare with recipes/")
        try:
            return cls.model_validate(sections[cls.section])
        except ValidationError as error:
            raise UserError(f"{path}: {'; '.join(map(cls._explain, error.errors()))}") from None

    @classmethod
    def _explain(cls, error: dict) -> str:
        key = ".".join(map(str, (cls.section, *error["loc"])))
        if error["type"] == "extra_forbidden":
            more = f": {cls.if_unknown}" if cls.if_unknown and len(error["loc"]) == 1 else ""
            return f"{key} is not a known key{more}"
        if error["type"] == "missing":
            return f"{key} is missing"
        return f"{key} = {SHORT.repr(error['input'])}: {error['msg'].removeprefix('Value error, ')}"
