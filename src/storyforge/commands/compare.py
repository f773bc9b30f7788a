"""Writers side by side on the same prompts, seeds and settings."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from storyforge.commands.writers import Writers
from storyforge.core.records import Prompt

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    tokens: int
    ended: bool  # by itself

    @property
    def end(self) -> str:
        return f"{self.tokens} tokens, {'ended by itself' if self.ended else 'cut'}"


@dataclass(frozen=True, slots=True)
class Answers:
    """What each writer made of one prompt."""

    prompt: Prompt
    written: Mapping[str, Answer]


def compare(writers: Writers, prompts: Sequence[Prompt], params: "SamplingParams") -> list[Answers]:
    found: dict[str, list[Answer]] = {}
    for name in tqdm(writers.names, "compare", unit=" writers", disable=None, leave=False):
        written = writers.write(name, prompts, params)
        found[name] = [Answer(each.text, each.tokens, each.ended) for each in written]
    return [
        Answers(prompt, {name: texts[at] for name, texts in found.items()})
        for at, prompt in enumerate(prompts)
    ]


def markdown(answers: Sequence[Answers], params: "SamplingParams") -> str:
    """A page with a column a writer; their words are escaped, never markup."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in params.model_dump().items())
    parts = ["# Writers side by side\n", f"Same prompts, seeds and settings for all: {settings}.\n"]
    for answer in answers:
        names = "".join(f"<th>{html.escape(name)}</th>" for name in answer.written)
        width = 100 // len(answer.written)
        cells = "".join(f'<td width="{width}%">{_cell(text)}</td>' for text in answer.written.values())
        parts += [
            f"## {html.escape(answer.prompt.kind).capitalize()}\n",
            "> " + html.escape(answer.prompt.prompt, quote=False).replace("\n", "\n> ") + "\n",
            f'<table>\n<tr>{names}</tr>\n<tr valign="top">{cells}</tr>\n</table>\n',
        ]
    return "\n".join(parts)


def _cell(answer: Answer) -> str:
    text = html.escape(answer.text).replace("\n", "<br>") or "<i>nothing</i>"
    return f"{text}<br><sub>{answer.end}</sub>"
