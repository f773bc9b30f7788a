"""The principles of data/constitution.yaml, and which of them a prompt calls for."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, ValidationError

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml
from storyforge.core.params import Slice
from storyforge.measures.prompt_words import words_ratio
from storyforge.principles.checks import CHECKS, speakers_asked

Text = Annotated[str, Field(pattern=r"\S")]
VIEWPOINT = re.compile(r"\b(?:first|third)[ -]person\b|\b(?:present|past) tense\b", re.IGNORECASE)
END = re.compile(
    r"\b(?:whole|complete|entire|short) (?:\w+ )?(?:scene|story|tale)\b|\bend of a\b", re.IGNORECASE
)
NAME = re.compile(r"(?<=[a-z,;:] )[A-Z][a-z]{2,}|\b[A-Z]{3,}\b")
CONDITIONS: dict[str, Callable[[str], bool]] = {
    "any": lambda prompt: True,
    "drama": lambda prompt: bool(speakers_asked(prompt)),
    "prose": lambda prompt: not speakers_asked(prompt),
    "asks_length": lambda prompt: words_ratio(prompt, 1) is not None,
    "asks_viewpoint": lambda prompt: bool(VIEWPOINT.search(prompt)),
    "asks_end": lambda prompt: bool(END.search(prompt)),
    "names": lambda prompt: bool(NAME.search(prompt)),
}


class Principle(Slice):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal["task", "story", "prose", "limits"]
    applies: Literal["any", "drama", "prose", "asks_length", "asks_viewpoint", "asks_end", "names"]
    critique: Text
    revise: Text
    check: str | None = None
    weight: NonNegativeFloat = 0.0  # 0: a guard, which vetoes and never picks


def read_constitution(path: Path) -> tuple[Principle, ...]:
    """UserError names file, principle and key."""
    content = read_yaml(path)
    entries = content.get("principles") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries or set(content) - {"version", "principles"}:
        raise UserError(f"{path}: it must hold a list `principles`, and nothing beside it but `version`")
    found: dict[str, Principle] = {}
    for number, entry in enumerate(entries, 1):
        name = entry.get("id", number) if isinstance(entry, dict) else number
        try:
            principle = Principle.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "it"
            raise UserError(f"{path}: principle {name}: {key}: {first['msg']}") from None
        if principle.id in found:
            raise UserError(f"{path}: principle {name}: id: it stands twice")
        if principle.check is not None and principle.check not in CHECKS:
            known = ", ".join(CHECKS)
            raise UserError(f"{path}: principle {name}: check: no '{principle.check}'; there are: {known}")
        if principle.weight and principle.check is None:
            raise UserError(f"{path}: principle {name}: weight: it weighs a check, and there is none")
        found[principle.id] = principle
    return tuple(found.values())


def applying(principles: Sequence[Principle], prompt: str) -> tuple[Principle, ...]:
    """Those that the words of the prompt call for."""
    return tuple(each for each in principles if CONDITIONS[each.applies](prompt))


def as_system(principles: Sequence[Principle]) -> str:
    """The principles as a system prompt: what a writer can be told without any training."""
    return "Keep to these principles:\n" + "\n".join(f"- {each.revise}" for each in principles)
