"""A talk with a writer: its turns, its settings, and what can be asked of it between the turns."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from storyforge.commands.writers import Writers, sampling
from storyforge.core.choice import rank
from storyforge.core.errors import UserError
from storyforge.core.files import published

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams

SHORT = {"length": "max_new_tokens", "penalty": "repetition_penalty"}
HELP = """\
/help             this
/settings         what the writer is asked with now
/temperature 0.9  change one of: temperature, top_p, min_p, penalty, length, seed
/writer base      let another writer go on: {writers}
/retry            the last answer again, otherwise
/new              forget what was said
/save FILE        the talk as Markdown
/quit             or Ctrl-D; Ctrl-C stops an answer"""


class Talk:
    """The turns so far, and how the next is to be written. The same lines and seed give the same talk."""

    def __init__(self, writers: Writers, writer: str, params: "SamplingParams", home: Path):
        self.writers, self.writer, self.params = writers, writer, params
        self.home = home  # what a relative path of /save is relative to
        self.turns: list[tuple[str, str, str]] = []  # the prompt, the reply and who wrote it
        self.attempt = 0  # of the turn to come; each has its own seed
        self.over = False
        self.commands: dict[str, Callable[[str], str | Iterator[str]]] = {
            "help": self._help,
            "settings": self._settings,
            "writer": self._choose,
            "retry": self._retry,
            "new": self._new,
            "save": self._save,
            "quit": self._quit,
        }

    def hear(self, line: str) -> Iterator[str]:
        """The writer's answer in pieces, or a word on what a command did; UserError where it cannot."""
        line = line.strip()
        if not line.startswith("/"):
            if line:
                self.attempt = 0
                yield from self._answer(line)
            return
        name, _, value = line[1:].partition(" ")
        key = SHORT.get(name, name)
        if name in self.commands:
            said = self.commands[name](value.strip())
            yield from [said] if isinstance(said, str) else said
        elif key in type(self.params).model_fields:
            if value.strip():
                self.params = sampling(self.params.model_dump() | {key: value.strip()})
            yield f"{key} {getattr(self.params, key)}"
        else:
            raise UserError(f"/{name} is not known: /help lists what is")

    def _answer(self, prompt: str) -> Iterator[str]:
        """An answer that is broken off is kept as far as it went."""
        ids, forgotten = self._prompt(prompt)
        if forgotten:
            yield f"[forgetting the first {forgotten} of {len(self.turns)} turns: they do not fit any more]\n"
        seed = rank(f"{len(self.turns)}:{self.attempt}", self.params.seed) >> 32
        said: list[str] = []
        try:
            with closing(self.writers.stream(self.writer, ids, self.params, seed)) as stream:
                for piece in stream:
                    said.append(piece.text)
                    yield piece.text
        finally:
            self.turns.append((prompt, "".join(said), self.writer))

    def _prompt(self, prompt: str) -> tuple[list[int], int]:
        """Tokens of the talk up to the reply, and how many of the first turns did not fit before it."""
        room = self.writers.longest - self.params.max_new_tokens
        for start in range(len(self.turns) + 1):
            history = [
                turn
                for asked, told, _ in self.turns[start:]
                for turn in (("user", asked), ("assistant", told))
            ]
            ids = self.writers.encoder.prompt(prompt, history)
            if len(ids) <= room:
                return ids, start
        raise UserError(
            f"{len(ids)} tokens of prompt leave no room for a reply of {self.params.max_new_tokens}"
        )

    def _help(self, value: str) -> str:
        return HELP.format(writers=", ".join(self.writers.names))

    def _settings(self, value: str) -> str:
        chosen = [f"{key} {value}" for key, value in self.params.model_dump().items()]
        return "\n".join([f"writer {self.writer}", *chosen])

    def _choose(self, value: str) -> str:
        if value not in self.writers.names:
            raise UserError(f"/writer {value}: choose one of {', '.join(self.writers.names)}")
        self.writer = value
        return f"writer {value}"

    def _retry(self, value: str) -> Iterator[str]:
        if not self.turns:
            raise UserError("/retry: nothing has been answered yet")
        prompt, *_ = self.turns.pop()
        self.attempt += 1
        return self._answer(prompt)

    def _new(self, value: str) -> str:
        self.turns, self.attempt = [], 0
        return "a new talk"

    def _save(self, value: str) -> str:
        if not value:
            raise UserError("/save: say into which file")
        if not self.turns:
            raise UserError("/save: nothing has been said yet")
        with published(self.home / Path(value).expanduser()) as file:
            file.write(self.transcript().encode())
        return f"saved to {value}"

    def _quit(self, value: str) -> str:
        self.over = True
        return ""

    def transcript(self) -> str:
        """Markdown in which nobody's words are markup: every line of them is indented."""
        parts = ["# A talk\n"]
        for asked, told, writer in self.turns:
            for name, text in (("you", asked), (writer, told)):
                parts += [f"**{name}**\n", *(f"    {line}" for line in text.splitlines()), ""]
        settings = ", ".join(f"{key} {value}" for key, value in self.params.model_dump().items())
        return "\n".join([*parts, f"<sub>{settings}</sub>\n"])
