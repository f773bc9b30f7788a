"""What the commands found, as a person reads it: the one module here that prints. Plain into a file."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import typer

from storyforge.core.errors import UserError

if TYPE_CHECKING:
    from storyforge.commands.chat import Talk
    from storyforge.commands.compare import Answers
    from storyforge.commands.estimate import Estimate
    from storyforge.commands.look import Count, Shown, Token

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # nothing written may steer the terminal
GIB = 1 << 30
NARROW = 40  # columns that a text needs beside another


def say(text: str, end: str = "\n") -> None:
    typer.echo(UNPRINTABLE.sub("", text) + end, nl=False)


def aside(text: str) -> None:
    """To stderr: what is not the answer."""
    typer.secho(text, dim=True, err=True)


@contextmanager
def waiting(why: str) -> Iterator[None]:
    """A line that is there as long as something takes, where somebody looks."""
    if not sys.stderr.isatty():
        yield
        return
    typer.secho(f"{why} …", dim=True, err=True, nl=False)
    try:
        yield
    finally:
        typer.echo("\r\x1b[K", err=True, nl=False)


def complain(what: str) -> None:
    typer.secho(f"error: {UNPRINTABLE.sub('', what)}", fg="red", err=True)


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def heading(text: str) -> None:
    typer.secho(UNPRINTABLE.sub("", text), bold=True)


def story(told: "Shown", tokens: Sequence["Token"] | None) -> None:
    """Where it is from, what was asked, the text; with `tokens` as training sees it."""
    row = told.row
    heading(f"{row['source']} · {row['group']} · {row['id']} · {len(told.text.split()):,} words")
    for rule, why in told.reasons.items():
        typer.secho(f"rejected: {rule}: {why}", fg="red")
    if tokens is not None:
        loss(tokens)
        return
    if row["prompt"]:
        say("> " + row["prompt"].replace("\n", "\n> "))
    say(f"\n{told.text}\n")


def loss(tokens: Sequence["Token"]) -> None:
    """The prompt dim, the reply in two greens, a token each; the headings say it without colour."""
    for learned, name in ((False, "no loss"), (True, "loss")):
        part = [token for token in tokens if token.learned is learned]
        heading(f"{name}: {len(part):,} tokens")
        for number, token in enumerate(part):
            look = {"fg": ("green", "bright_green")[number % 2]} if learned else {"dim": True}
            typer.secho(UNPRINTABLE.sub("", token.text), nl=False, **look)
        typer.echo("\n")


def counts(found: Iterable["Count"]) -> None:
    from rich.table import Table

    table = Table("source", "rule", box=None, pad_edge=False)
    for name in ("dropped", "of drafts", "fired"):
        table.add_column(name, justify="right")
    for count in found:
        share = f"{count.dropped / count.drafts:.2%}"
        table.add_row(count.source, count.rule, f"{count.dropped:,}", share, f"{count.fired:,}")
    draw(table)
    aside("dropped: by the first rule that fired. Texts: storyforge look rejected --reason RULE")


def estimated(found: "Estimate") -> None:
    """What it takes here, then elsewhere, then where the rates are from."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in facts(found):
        table.add_row(name, value)
    draw(table)
    typer.echo()
    table = Table("machine", box=None, pad_edge=False)
    for name in ("memory", "by", "tokens/s", "time"):
        table.add_column(name, justify="left" if name == "by" else "right")
    table.add_column("rate")
    for row in found.hardware:
        memory = f"{row.memory_gib} GiB" if row.memory_gib else ""
        if row.rate is None:
            table.add_row(row.machine, memory, "", "", "", "the model does not fit")
            continue
        most, least = ("≤ ", "≥ ") if row.at_best else ("", "")
        speed, time = f"{most}{row.rate.tokens_per_second:,.0f}", least + duration(row.hours * 3600)
        table.add_row(row.machine, memory, row.method, speed, time, row.rate.known)
    draw(table)
    for row in found.hardware:
        if row.rate:
            aside(f"{row.machine}: {row.rate.known}: {row.rate.source}")
    aside("Rates go by the weights a token is multiplied with: 4 FLOP each, or 6 where noted.")
    if any(row.at_best for row in found.hardware):
        aside("Below a billion weights a GPU waits for the program that feeds it: these are bounds.")


def facts(found: "Estimate") -> Iterator[tuple[str, str]]:
    job, costs, seconds, disk = found.job, found.costs, found.seconds, found.disk
    kind = costs.machine
    yield "machine", f"{kind['device']} {kind['processor']}, {kind['precision']}, {kind['threads']} threads"
    yield "time", duration(seconds.total)
    parts = ("startup", "training", "validation", "checkpoints")
    yield "of it", ", ".join(f"{part} {duration(getattr(seconds, part))}" for part in parts)
    yield "speed", f"{1 / costs.token_s:,.0f} tokens/s, measured here and now"
    yield (
        "peak memory",
        f"{costs.peak_memory_bytes / GIB:.1f} GiB with {costs.micro_batch_tokens:,} tokens at once",
    )
    yield "trainable", f"{costs.trainable_parameters:,} parameters"
    yield "batch", f"{job.stories_a_step} stories, {job.tokens_a_step:,.0f} tokens, however they are cut"
    yield "tokens", f"{job.tokens_an_epoch:,} an epoch, {job.tokens:,} in {job.steps:,} steps"
    sizes = ((disk.adapter, "adapter"), (disk.checkpoints, "checkpoints"), (disk.base, "base"))
    yield "disk", ", ".join(f"{size / (1 << 20):,.0f} MiB {name}" for size, name in sizes)
    if found.price is not None:
        yield "cost", f"{found.price:,.2f} at {found.price_per_hour:,.2f} an hour"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"


def answers(found: Iterable["Answers"]) -> None:
    """A column a writer, where there is room; else one below the other."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    for answer in found:
        heading(f"{answer.prompt.kind}: {answer.prompt.prompt}\n")
        width = Console().width // len(answer.written)
        if width < NARROW:
            for name, written in answer.written.items():
                typer.secho(f"{name} ({written.end})", fg="cyan")
                say(f"{written.text}\n")
            continue
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), expand=True)
        for name, written in answer.written.items():
            table.add_column(f"{name} ({written.end})", header_style="cyan", ratio=1)
        table.add_row(*(Text(UNPRINTABLE.sub("", written.text)) for written in answer.written.values()))
        draw(table)
        typer.echo()


def draw(table) -> None:
    from rich.console import Console

    Console(highlight=False).print(table)


def converse(talk: "Talk") -> None:
    """Line by line until /quit or the end of the input. Ctrl-C stops an answer; between two, the talk."""
    typed = sys.stdin.isatty()
    if typed:
        import readline  # noqa: F401  (the arrow keys)
    while not talk.over:
        try:
            line = input("> ")
        except EOFError:
            return typer.echo()
        if not typed:  # so that a scripted talk can be read
            say(line)
        try:
            with closing(talk.hear(line)) as words:
                for word in words:
                    say(word, end="")
        except UserError as error:
            complain(str(error))
            continue
        except KeyboardInterrupt:
            aside(" [stopped]")
        say("")
