"""`storyforge compare`: writers side by side on the same prompts, seeds and settings."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer
from tqdm import tqdm

from storyforge.commands.terminal import console, say
from storyforge.commands.writers import Writers, how_it_ended
from storyforge.core.records import Prompt
from storyforge.core.text import printable
from storyforge.report.page import cell, plain, quoted
from storyforge.report.page import table as markdown_table

if TYPE_CHECKING:
    from storyforge.sampling.generate import SamplingParams

NARROW = 40  # columns; with less for each writer, the texts come one below the other


@dataclass(frozen=True, slots=True)
class Answers:
    """Writer's name → its text and how that ended ("12 tokens, cut")."""

    prompt: Prompt
    texts: dict[str, tuple[str, str]]


def answered(writers: Writers, prompts: Sequence[Prompt], params: "SamplingParams") -> list[Answers]:
    answers = [Answers(prompt, {}) for prompt in prompts]
    for name in tqdm(writers.names, "compare", unit=" writers", disable=None, leave=False):
        for answer, reply in zip(answers, writers.write(name, prompts, params), strict=True):
            answer.texts[name] = reply.text, how_it_ended(reply.tokens, reply.ended)
    return answers


def show(answers: Iterable[Answers]) -> None:
    """Writers side by side where the terminal is wide enough."""
    from rich.table import Table
    from rich.text import Text

    for answer in answers:
        say(f"{answer.prompt.kind}: {answer.prompt.prompt}\n", bold=True)
        if console().width // len(answer.texts) < NARROW:
            for name, (text, end) in answer.texts.items():
                say(f"{name} ({end})", fg="cyan")
                say(f"{text}\n")
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
        for name, (_, end) in answer.texts.items():
            table.add_column(Text(printable(f"{name} ({end})")), header_style="cyan", ratio=1)
        table.add_row(*(Text(printable(text)) for text, _ in answer.texts.values()))
        console().print(table)
        typer.echo()


def page(answers: Sequence[Answers], params: "SamplingParams") -> str:
    """Markdown with a column for each writer; in none of their texts, names or prompts is anything markup."""
    settings = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in params.model_dump().items())
    parts = ["# Writers side by side", f"Same prompts, seeds and settings for all: {settings}."]
    for prompt, texts in ((each.prompt, each.texts) for each in answers):
        cells = [cell(text, end) for text, end in texts.values()]
        parts += [
            f"## {plain(prompt.kind.capitalize())}",
            quoted(prompt.prompt),
            markdown_table([*map(plain, texts)], [cells]),
        ]
    return "\n\n".join(parts) + "\n"
