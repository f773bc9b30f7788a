"""`Params`: one validated section of params.yaml."""

from pathlib import Path
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from storyforge.core.errors import UserError

PARAMS = Path("params.yaml")


class Slice(BaseModel):
    """A group of params: unknown keys, infinity and nan are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Params(Slice):
    """A top-level section of params.yaml; subclasses name it and list its fields."""

    section: ClassVar[str]
    if_unknown: ClassVar[str] = ""  # what the error for an unknown key of the section adds

    @classmethod
    def load(cls, path: Path = PARAMS) -> Self:
        """Read this section as YAML 1.2: PyYAML takes 2e-05 for text. UserError names file, key and value."""
        try:
            sections = YAML(typ="safe").load(path)
        except (OSError, YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
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
        return f"{key} = {error['input']!r}: {error['msg'].removeprefix('Value error, ')}"
