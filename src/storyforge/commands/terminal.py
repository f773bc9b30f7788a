"""Printing to the terminal: plain text where the output is a file, and no control characters."""

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # escape sequences in a story have no effect


def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def table(rows: Iterable[Sequence[str]], names: Sequence[str] = (), right: Collection[str] = ()) -> None:
    """Print rows in columns; without `names` there is no header, `right` names those that end in line."""
    from rich.table import Table

    drawn = Table(box=None, show_header=bool(names), pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        drawn.add_column(name, justify="right" if name in right else "left")
    for row in rows:
        drawn.add_row(*row)
    console().print(drawn)


def say(text: str, end: str = "\n", **style) -> None:
    text = UNPRINTABLE.sub("", text)
    typer.echo((typer.style(text, **style) if style else text) + end, nl=False)


def aside(text: str) -> None:
    """To stderr: what is not the answer."""
    typer.secho(text, dim=True, err=True)


def complain(text: str) -> None:
    typer.secho(f"error: {UNPRINTABLE.sub('', text)}", fg="red", err=True)


@contextmanager
def waiting(why: str) -> Iterator[None]:
    """A line on a terminal's stderr that is cleared at the end."""
    if not sys.stderr.isatty():
        yield
        return
    typer.secho(f"{why} …", dim=True, err=True, nl=False)
    try:
        yield
    finally:
        typer.echo("\r\x1b[K", err=True, nl=False)
