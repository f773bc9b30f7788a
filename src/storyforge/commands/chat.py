"""`storyforge chat`: a conversation with a writer, and the commands that begin with /."""

import io
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from storyforge.commands.terminal import aside, complain, say
from storyforge.commands.writers import Writers, indented, sampling
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import published, whole
from storyforge.report.page import plain

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams

SHORT = {"length": "max_new_tokens", "penalty": "repetition_penalty"}
HELP = """\
/help             this
/settings         the writer and its sampling settings
/temperature 0.9  change one of: temperature, top_p, min_p, penalty, length, seed
/writer base      continue with another writer: {writers}
/retry            the last answer again, with another seed
/new              forget the conversation
/save FILE        write the conversation as Markdown
/quit             or Ctrl-D; Ctrl-C stops an answer"""


class Chat:
    """The turns so far and the settings of the next; the same lines and seed give the same conversation."""

    def __init__(self, writers: Writers, writer: str, params: "SamplingParams", home: Path):
        self.writers, self.writer, self.params = writers, writer, params
        self.home = home  # what a relative path of /save is relative to
        self.turns: list[tuple[str, str, str]] = []  # the prompt, the reply and its writer
        self.attempt = 0  # at the next turn; each has its own seed
        self.over = False

    def hear(self, line: str) -> Iterator[str]:
        """The answer in parts, or one text on what a command did; UserError where it cannot."""
        line = line.strip()
        if not line.startswith("/"):
            if line:
                self.attempt, prompt = 0, whole(line, "not answered")
                yield from self._answer(prompt)
            return
        name, _, value = line[1:].partition(" ")
        value, key = value.strip(), SHORT.get(name, name)
        match name:
            case "retry":
                if not self.turns:
                    raise UserError("/retry: nothing has been answered yet")
                prompt, *_ = self.turns.pop()
                self.attempt += 1
                yield from self._answer(prompt)
            case "help":
                yield HELP.format(writers=", ".join(self.writers.names))
            case "settings":
                yield "\n".join([f"writer {self.writer}", *(f"{key} {value}" for key, value in self.params)])
            case "writer":
                if value not in self.writers.names:
                    raise UserError(f"/writer {value}: choose one of {', '.join(self.writers.names)}")
                self.writer = value
                yield f"writer {value}"
            case "new":
                self.turns, self.attempt = [], 0
                yield "a new conversation"
            case "save":
                if not value:
                    raise UserError("/save: say into which file")
                if not self.turns:
                    raise UserError("/save: nothing has been said yet")
                with published(self.home / Path(value).expanduser()) as file:
                    file.write(self.transcript().encode())
                yield f"saved to {value}"
            case "quit":
                self.over = True
            case _ if key in type(self.params).model_fields:
                if value:
                    self.params = sampling(self.params.model_dump() | {key: value})
                yield f"{key} {getattr(self.params, key)}"
            case _:
                raise UserError(f"/{name} is not known: /help lists what is")

    def _answer(self, prompt: str) -> Iterator[str]:
        """An answer that is interrupted is kept as far as it went."""
        history = [(asked, reply) for asked, reply, _ in self.turns]
        ids, left_out = self.writers.encoded(prompt, self.params, history)
        if left_out:
            yield f"[forgetting the first {left_out} of {len(self.turns)} turns: they do not fit any more]\n"
        seed = rank(f"{len(self.turns)}:{self.attempt}", self.params.seed) >> 32
        reply = ""
        try:
            with closing(self.writers.stream(self.writer, ids, self.params, seed)) as stream:
                for delta in stream:
                    reply += delta.text
                    yield delta.text
        finally:
            self.turns.append((prompt, reply, self.writer))

    def transcript(self) -> str:
        """Markdown; every line of a prompt or reply is indented, so that none of it is markup."""
        parts = ["# Conversation\n"]
        for prompt, reply, writer in self.turns:
            parts += ["**you**\n", *indented(prompt), f"**{plain(writer)}**\n", *indented(reply)]
        settings = ", ".join(f"{key} {value}" for key, value in self.params)
        return "\n".join([*parts, f"<sub>{settings}</sub>\n"])


def converse(chat: Chat) -> None:
    """Line by line until /quit or the end of the input. Ctrl-C stops an answer; between two, the program."""
    typed = sys.stdin.isatty()
    if isinstance(sys.stdin, io.TextIOWrapper):  # what is not UTF-8 is an error of its line, no traceback
        sys.stdin.reconfigure(errors="surrogateescape")
    if typed:
        import readline  # noqa: F401  (the arrow keys)
    while not chat.over:
        try:
            line = input("> ")
        except EOFError:
            return typer.echo()
        if not typed:  # else the transcript of a script would lack its lines
            say(line)
        try:
            with closing(chat.hear(line)) as parts:
                for part in parts:
                    say(part, end="")
        except UserError as error:
            complain(str(error))
            continue
        except KeyboardInterrupt:
            aside(" [stopped]")
        say("")
