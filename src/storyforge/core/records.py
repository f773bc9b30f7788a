"""Story, Exchange, Pair and Prompt: what one stage hands to the next."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storyforge.core.errors import UserError
from storyforge.core.files import read_yaml

SIDES = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Story:
    """A text as its source gives it."""

    id: str  # from source and content: the same text has the same id wherever it stands
    source: str
    group: str  # what no split may cut: the play, the prompt, the book
    prompt: str | None  # the instruction the source itself gives
    text: str
    licence: str
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A prompt and the story that answers it: what is trained and evaluated on."""

    id: str
    source: str
    group: str
    prompt: str
    story: str
    ended: bool  # False where the text was cut: its end must not teach a writer to stop
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, the better one named first: what preference training learns from."""

    id: str
    source: str
    group: str
    prompt: str
    chosen: str
    rejected: str
    chosen_ended: bool  # False where it was cut, as in Exchange
    rejected_ended: bool
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A held-out prompt of data/prompts.yaml: every writer is asked, no story trained on answers it."""

    id: str
    kind: str
    prompt: str


def read_prompts(path: Path) -> list[Prompt]:
    """UserError names the entry that is no prompt, or whose id stands twice."""
    content = read_yaml(path)
    entries = content.get("prompts") if isinstance(content, dict) else None
    prompts: dict[str, Prompt] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [], 1):
        try:
            prompt = Prompt(**entry)
        except TypeError:
            prompt = None
        if prompt is None or not all(isinstance(word, str) and word.strip() for word in entry.values()):
            raise UserError(f"{path}: prompt {number} must have the texts id, kind and prompt, and no others")
        if prompt.id in prompts:
            raise UserError(f"{path}: prompt {number}: the id {prompt.id!r} stands twice")
        prompts[prompt.id] = prompt
    if not prompts:
        raise UserError(f"{path}: there is no list of prompts in it")
    return list(prompts.values())
