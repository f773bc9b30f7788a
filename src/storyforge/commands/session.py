"""Requests and replies of the demo."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from storyforge.commands.continuing import last_page_of, passage
from storyforge.commands.writers import TUNED, Delta, Writers, how_it_ended, indented, sampling
from storyforge.core.choice import sample_seed
from storyforge.core.errors import UserError
from storyforge.core.files import whole
from storyforge.core.records import Prompt
from storyforge.core.text import one_line
from storyforge.evaluate.prompts import HELD_OUT
from storyforge.report.page import plain

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams

MAX_WRITERS = 3  # side by side
MAX_CHARACTERS = 2000  # of a prompt
MAX_DRAFT = 200_000  # characters of a text that is written on
MAX_TOKENS = 600  # of a reply
MAX_SECONDS = 180.0  # for all writers of a request together
MAX_VISITORS = 6  # one is served, the others wait
TITLE = 60  # characters of a prompt without a title
MAX_REQUESTS = 30  # kept on a page; the oldest is dropped


@dataclass(slots=True)
class Reply:
    """What one writer has written so far."""

    text: str = ""
    end: str = "not begun"


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, seed and settings for all its writers; `replies` are filled by `answer`."""

    prompt: Prompt
    params: "SamplingParams"
    replies: dict[str, Reply]  # by writer

    @property
    def settings(self) -> str:
        params = self.params
        return f"temperature {params.temperature:g}, top p {params.top_p:g}, seed {params.seed}"


def request(prompt: Prompt, writers: Sequence[str], changes: Mapping[str, Any]) -> Request:
    """UserError names what is missing or too much: a browser may send what the page does not offer."""
    if not prompt.prompt.strip():
        raise UserError("no prompt: say what the story is about")
    prompt = replace(prompt, prompt=whole(prompt.prompt, "the prompt"))
    if len(prompt.prompt) > MAX_CHARACTERS:
        raise UserError(f"{len(prompt.prompt)} characters of prompt: at most {MAX_CHARACTERS}")
    if not 1 <= len(writers) <= MAX_WRITERS:
        raise UserError(f"{len(writers)} writers: choose one to {MAX_WRITERS}")
    return Request(prompt, bounded(changes), {name: Reply() for name in writers})


def bounded(changes: Mapping[str, Any]) -> "SamplingParams":
    """The `sampling` of params.yaml with some values changed; UserError where a reply would be too long."""
    params = sampling(changes)
    if params.max_new_tokens > MAX_TOKENS:
        raise UserError(f"{params.max_new_tokens} tokens: at most {MAX_TOKENS}")
    return params


def answer(writers: Writers, request: Request) -> Iterator[str]:
    """Fill the replies, one after another, for at most MAX_SECONDS; gives whose reply has grown."""
    params, deadline = request.params, time.monotonic() + MAX_SECONDS
    ids, _ = writers.encoded(request.prompt.prompt, params)
    seed = sample_seed(request.prompt.id, 0, params.seed)
    for name, reply in request.replies.items():
        for _ in _grown(reply, writers.stream(name, ids, params, seed), deadline):
            yield name
        if time.monotonic() > deadline:
            return


def continued(writers: Writers, text: str, changes: Mapping[str, Any]) -> Iterator[Reply]:
    """The tuned writer's next passage of a text, given each time it has grown; at most MAX_SECONDS."""
    if not text.strip():
        raise UserError("no text: write a first sentence")
    page, _ = last_page_of(whole(text, "the text"))
    stream = passage(writers, TUNED, page, bounded(changes))
    reply = Reply()
    for _ in _grown(reply, stream, time.monotonic() + MAX_SECONDS):
        yield reply


def _grown(reply: Reply, stream: Iterator[Delta], deadline: float) -> Iterator[None]:
    with closing(stream):
        for delta in stream:
            late = time.monotonic() > deadline
            reply.text += delta.text
            reply.end = f"{delta.tokens} tokens{f', stopped after {MAX_SECONDS:g} s' if late else ' …'}"
            yield
            if late:
                return
    reply.end = how_it_ended(delta.tokens, delta.ended)
    yield


class Queue:
    """First come, first served: there is one model."""

    def __init__(self):
        self._lock = Lock()
        self._waiting: list[object] = []  # the first is being served

    @contextmanager
    def place(self) -> Iterator[Callable[[], int]]:
        """Gives how many are ahead; from 0 on it is this visitor's turn, until the end of the `with`."""
        ticket = object()
        with self._lock:  # or two visitors could take the last place
            if len(self._waiting) == MAX_VISITORS:
                raise UserError(f"{MAX_VISITORS} are waiting already: try again in a few minutes")
            self._waiting.append(ticket)
        try:
            yield lambda: self._waiting.index(ticket)
        finally:
            self._waiting.remove(ticket)


def markdown(requests: Sequence[Request]) -> str:
    """A page; every line of a prompt or reply is indented, so that none of it is markup."""
    parts = ["# Stories\n"]
    for each in requests:
        parts += [f"## {plain(title(each.prompt))}\n", *indented(each.prompt.prompt), f"{each.settings}\n"]
        for name, reply in each.replies.items():
            parts += [f"### {plain(name)}\n", *indented(reply.text), f"{reply.end}\n"]
    return "\n".join(parts)


def title(prompt: Prompt) -> str:
    """Its kind, and what distinguishes it from others of that kind: of a corpus' prompts, how they end."""
    if prompt.kind == HELD_OUT:
        return f"Held out: …{one_line(prompt.prompt)[-TITLE:]}"
    rest = "" if prompt.id == prompt.kind else prompt.id.replace("-", " ").removeprefix(prompt.kind).strip()
    return f"{prompt.kind.capitalize()}{f': {rest}' if rest else ''}"
