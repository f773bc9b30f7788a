"""`Params`: one validated section of params.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from reprlib import Repr
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml

PARAMS = Path("params.yaml")
SHORT = Repr()  # of a value in a message
SHORT.maxstring = SHORT.maxother = 80
Group = TypeVar("Group", bound=BaseModel)


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
        return validated(cls, sections[cls.section], path, (cls.section,), cls.if_unknown)


def validated(
    kind: type[Group], values: Any, path: Path, above: Sequence[str] = (), if_unknown: str = ""
) -> Group:
    """The values, which stand in a file under the keys `above`; UserError names file, key and value."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        said = "; ".join(_explained(each, above, if_unknown) for each in error.errors())
        raise UserError(f"{path}: {said}") from None


def _explained(error: Mapping[str, Any], above: Sequence[str], if_unknown: str) -> str:
    key = ".".join(map(str, (*above, *error["loc"])))
    if error["type"] == "extra_forbidden":
        more = f": {if_unknown}" if if_unknown and len(error["loc"]) == 1 else ""
        return f"{key} is not a known key{more}"
    if error["type"] == "missing":
        return f"{key} is missing"
    given = f"{key} = " if key else ""
    return f"{given}{SHORT.repr(error['input'])}: {error['msg'].removeprefix('Value error, ')}"
