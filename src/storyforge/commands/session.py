"""What a visitor of the demo wishes for, is told and takes home; one at a time, the others wait."""

import html
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from storyforge.commands.writers import Writers, sampling
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError
from storyforge.core.records import Prompt

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams

MAX_WRITERS = 3  # side by side
MAX_CHARACTERS = 2000  # of a prompt
MAX_TOKENS = 600  # of a reply
MAX_SECONDS = 180.0  # for all writers of a wish together
MAX_VISITORS = 6  # one is served, the others wait
MAX_TALES = 30  # kept; the oldest leaves


@dataclass(frozen=True, slots=True)
class Wish:
    """All its writers answer the same prompt with the same seed and settings."""

    prompt: Prompt
    writers: tuple[str, ...]
    params: "SamplingParams"

    @property
    def settings(self) -> str:
        params = self.params
        return f"temperature {params.temperature:g}, top p {params.top_p:g}, seed {params.seed}"


@dataclass(slots=True)
class Told:
    """What one writer has said so far."""

    text: str = ""
    end: str = "not begun"


@dataclass(frozen=True, slots=True)
class Tale:
    wish: Wish
    told: Mapping[str, Told]  # by writer

    @property
    def begun(self) -> bool:
        return any(told.text for told in self.told.values())


def wish(prompt: Prompt, writers: Sequence[str], changes: Mapping[str, Any]) -> Wish:
    """UserError names what is missing or too much: a browser need not keep to what the page offers."""
    if not prompt.prompt.strip():
        raise UserError("no prompt: say what the story is about")
    if len(prompt.prompt) > MAX_CHARACTERS:
        raise UserError(f"{len(prompt.prompt)} characters of prompt: at most {MAX_CHARACTERS}")
    if not 1 <= len(writers) <= MAX_WRITERS:
        raise UserError(f"{len(writers)} writers: choose one to {MAX_WRITERS}")
    params = sampling(changes)
    if params.max_new_tokens > MAX_TOKENS:
        raise UserError(f"{params.max_new_tokens} tokens: at most {MAX_TOKENS}")
    return Wish(prompt, tuple(writers), params)


def begin(wish: Wish) -> Tale:
    return Tale(wish, {name: Told() for name in wish.writers})


def tell(writers: Writers, tale: Tale) -> Iterator[str]:
    """Fill the tale, writer after writer: whose words have grown. It ends when MAX_SECONDS are over."""
    params, deadline = tale.wish.params, time.monotonic() + MAX_SECONDS
    ids = writers.encoder.prompt(tale.wish.prompt.prompt)
    if len(ids) + params.max_new_tokens > writers.longest:
        raise UserError(f"{len(ids)} tokens of prompt leave no room for a reply of {params.max_new_tokens}")
    seed = sample_seed(tale.wish.prompt.id, 0, params.seed)
    for name, told in tale.told.items():
        assert name in writers.names, name
        with closing(writers.stream(name, ids, params, seed)) as stream:
            for piece in stream:
                told.text += piece.text
                told.end = f"{piece.tokens} tokens …"
                yield name
                if time.monotonic() > deadline:
                    told.end = f"{piece.tokens} tokens, stopped after {MAX_SECONDS:g} s"
                    yield name
                    return
            told.end = piece.end
            yield name


class Turns:
    """First come, first served."""

    def __init__(self):
        self._lock = Lock()
        self._queue: list[object] = []  # the first is being served

    @contextmanager
    def mine(self) -> Iterator[Callable[[], int]]:
        """Gives how many are ahead; at 0 it is this visitor's turn, until the end of the `with`."""
        ticket = object()
        with self._lock:
            if len(self._queue) == MAX_VISITORS:
                raise UserError(f"{MAX_VISITORS} are waiting already: try again in a few minutes")
            self._queue.append(ticket)
        try:
            yield lambda: self._queue.index(ticket)
        finally:
            self._queue.remove(ticket)


def markdown(tales: Sequence[Tale]) -> str:
    """A page in which nobody's words are markup: every line of them is indented."""
    parts = ["# Stories\n"]
    for tale in tales:
        parts += [f"## {title(tale.wish.prompt)}\n", *_indented(tale.wish.prompt.prompt)]
        parts.append(f"{tale.wish.settings}\n")
        for name, told in tale.told.items():
            parts += [f"### {html.escape(name)}\n", *_indented(told.text), f"{told.end}\n"]
    return "\n".join(parts)


def title(prompt: Prompt) -> str:
    """Its kind, and what tells it from others of that kind."""
    if prompt.id == prompt.kind:
        return prompt.kind.capitalize()
    rest = prompt.id.replace("-", " ").removeprefix(prompt.kind).strip()
    return f"{prompt.kind.capitalize()}: {rest}"


def _indented(text: str) -> list[str]:
    return [*(f"    {line}" for line in text.splitlines()), ""]
