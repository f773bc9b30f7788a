"""Printing to the terminal: what comes from elsewhere is neither obeyed nor read as markup."""

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from storyforge.core.text import one_line, printable

if TYPE_CHECKING:
    from rich.console import Console


def console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def table(rows: Iterable[Sequence[str]], names: Sequence[str] = (), right: Collection[str] = ()) -> None:
    """Print rows in columns; without `names` there is no header, `right` names those that end in line."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, show_header=bool(names), pad_edge=False, padding=(0, 2, 0, 0))
    for name in names:
        drawn.add_column(Text(printable(name)), justify="right" if name in right else "left")
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))  # in plain strings rich reads markup
    console().print(drawn)


def say(text: str, end: str = "\n", **style) -> None:
    text = printable(text)
    typer.echo((typer.style(text, **style) if style else text) + end, nl=False)


def aside(text: str) -> None:
    """To stderr: what is not the answer."""
    typer.secho(printable(text), dim=True, err=True)


def complain(text: str) -> None:
    typer.secho(f"error: {one_line(text)}", fg="red", err=True)


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
