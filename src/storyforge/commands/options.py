"""What the commands share: where they run, how they fail, the options of sampling."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from storyforge.core.errors import UserError


def instead(*names: str, **more: Any) -> Any:
    """An option that replaces a value of params.yaml."""
    return typer.Option(*names, show_default="params.yaml", **more)


SAMPLING = {
    "temperature": Annotated[float | None, instead(min=0, help="0: always the likeliest token.")],
    "top_p": Annotated[
        float | None, instead(min=0, max=1, help="Only the likeliest tokens with this total probability.")
    ],
    "min_p": Annotated[
        float | None, instead(min=0, max=1, help="Only tokens this likely, relative to the likeliest.")
    ],
    "repetition_penalty": Annotated[
        float | None, instead(help="Above 1: tokens already written become less likely.")
    ],
    "max_new_tokens": Annotated[int | None, instead("--length", min=1, help="Most tokens of a reply.")],
    "seed": Annotated[int | None, instead(min=0, help="Same seed, same text.")],
}
Tuned = Annotated[
    Path | None,
    typer.Option(resolve_path=True, show_default="models/tuned", help="The tuned adapter's folder."),
]
More = Annotated[
    list[Path] | None,
    typer.Option("--adapter", resolve_path=True, help="One more adapter's folder; repeatable."),
]
Presets = Annotated[
    list[str] | None,
    typer.Option("--preset", help="Kind or id in data/prompts.yaml; repeatable."),
]


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"storyforge {version('storyforge')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
]


def sampled(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `sampling`; the command takes them as keywords, None where one is not given."""
    own = [each for each in signature(command).parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    more = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in SAMPLING.items()]
    command.__signature__ = signature(command).replace(parameters=[*own, *more])
    return command


def at_the_root(command: Callable[..., None]) -> Callable[..., None]:
    """Run a command from the repository's root, in whatever folder of it the user is."""

    @wraps(command)
    def run(**options) -> None:
        from storyforge.commands.repository import enter

        enter()
        command(**options)

    return run


class Commands(TyperGroup):
    """UserError and wrong options end in one line on stderr; Ctrl-C in status 130."""

    def main(self, *args, standalone_mode: bool = True, **more) -> None:
        from storyforge.commands.terminal import complain

        warnings.simplefilter("ignore", FutureWarning)  # of libraries, about each other
        try:
            status = super().main(*args, standalone_mode=False, **more)
        except UserError as error:
            complain(str(error))
            status = 1
        except TyperException as error:  # a wrong option or argument
            context = getattr(error, "ctx", None)
            name = context.command_path if context else "storyforge"
            complain(f"{error.format_message().rstrip('.')}: see `{name} --help`")
            status = error.exit_code
        except (KeyboardInterrupt, typer.Abort):
            status = 130
        sys.exit(status)


def as_page(group: TyperGroup) -> str:
    """Markdown with the help of every command that is not hidden; the same at every terminal width."""
    parts = ["# The command line\n", "Made by `storyforge page > docs/COMMANDS.md`; a test compares them.\n"]
    shown = {name: command for name, command in group.commands.items() if not command.hidden}
    for name, each in {"": group, **shown}.items():
        title = f"storyforge {name}".strip()
        context = typer.Context(each, info_name=title, terminal_width=80, max_content_width=80)
        context.help_option_names = ["-h", "--help"]
        parts.append(f"## {title}\n\n```\n{each.get_help(context)}\n```\n")
    return "\n".join(parts)
