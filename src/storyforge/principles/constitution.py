"""The principles of data/constitution.yaml, and which of them a prompt calls for."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml
from storyforge.core.params import SHORT, Slice
from storyforge.principles.asked import CONDITIONS
from storyforge.principles.checks import CHECKS

OVERALL = "overall"  # what judges call the verdict that stands beside those by principle
Text = Annotated[str, Field(pattern=r"\S")]


class Principle(Slice):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["task", "story", "prose", "limits"]
    applies: Literal[tuple(CONDITIONS)]
    critique: Text  # a critic's question
    revise: Text  # a reviser's task, and a writer's rule
    check: Literal[tuple(CHECKS)] | None = None  # none: only a reader can tell
    weight: Annotated[float, Field(ge=0, strict=True)] = 0  # in a text's score; 0: a guard

    @model_validator(mode="after")
    def _weighs_a_check(self) -> Self:
        if self.weight and self.check is None:
            raise ValueError("weight: there is no check that it could weigh: give one, or leave it out")
        return self


def read_constitution(path: Path) -> tuple[Principle, ...]:
    """UserError names file, principle and key."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("principles"), list):
        raise UserError(f"{path}: there is no list of principles in it")
    if unknown := sorted(map(str, content.keys() - {"principles"})):
        raise UserError(f"{path}: {unknown[0]} is not a known key: beside `principles` there is nothing")
    found: dict[str, Principle] = {}
    for number, entry in enumerate(content["principles"], 1):
        principle = _principle(entry, f"{path}: principle {number}")
        if principle.id == OVERALL:
            raise UserError(
                f"{path}: principle {number}: the id {OVERALL!r} is the whole verdict's: take another"
            )
        if principle.id in found:
            raise UserError(f"{path}: principle {number}: the id {principle.id!r} stands twice")
        found[principle.id] = principle
    if not found:
        raise UserError(f"{path}: the list of principles is empty")
    return tuple(found.values())


def _principle(entry: Any, where: str) -> Principle:
    if not isinstance(entry, dict):
        raise UserError(f"{where}: it must have the keys {', '.join(Principle.model_fields)}")
    if isinstance(entry.get("id"), str):
        where += f" ({entry['id']})"
    try:
        return Principle.model_validate(entry)
    except ValidationError as error:
        raise UserError(f"{where}: {'; '.join(map(_explain, error.errors()))}") from None


def _explain(error: dict[str, Any]) -> str:
    key, said = ".".join(map(str, error["loc"])), error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        return f"{key} is not a known key"
    if error["type"] == "missing":
        return f"{key} is missing"
    if error["type"] == "string_pattern_mismatch" and key != "id":
        return f"{key} is empty"
    return f"{key} = {SHORT.repr(error['input'])}: {said}" if key else said


def applying(principles: Sequence[Principle], prompt: str) -> tuple[Principle, ...]:
    """Those that the words of the prompt call for."""
    return tuple(each for each in principles if CONDITIONS[each.applies](prompt))


def as_system(principles: Sequence[Principle]) -> str:
    """The principles as a system prompt: what a writer can be told without training."""
    return "Keep these rules:\n" + "\n".join(f"- {' '.join(each.revise.split())}" for each in principles)
