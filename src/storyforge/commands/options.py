"""What the commands share: where they run, how they fail, the options of sampling."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from storyforge.commands.terminal import complain
from storyforge.core.errors import UserError

HELP_OPTIONS = ["-h", "--help"]


def instead(kind: type, *names: str, **more: Any) -> Any:
    """An option that replaces a value of params.yaml."""
    return Annotated[kind | None, typer.Option(*names, show_default="params.yaml", **more)]


SAMPLING = {
    "temperature": instead(float, min=0, help="0: always the likeliest token."),
    "top_p": instead(float, min=0, max=1, help="Only the likeliest tokens with this total probability."),
    "min_p": instead(float, min=0, max=1, help="Only tokens this likely, relative to the likeliest."),
    "repetition_penalty": instead(float, help="Above 1: tokens already written become less likely."),
    "max_new_tokens": instead(int, "--length", min=1, help="Most tokens of a reply."),
    "seed": instead(int, min=0, help="Same seed, same text."),
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
    list[str] | None, typer.Option("--preset", help="Kind or id in data/prompts.yaml; repeatable.")
]


def at_the_root(command: Callable[..., None]) -> Callable[..., None]:
    """Run a command from the repository's root, in whatever folder of it the user is.

    One that takes `**sampling` gets the options of SAMPLING, None where one is not given.
    """

    @wraps(command)
    def run(**options) -> None:
        from storyforge.commands.repository import enter

        enter()
        command(**options)

    own = dict(signature(command).parameters)
    if own.pop("sampling", None):
        more = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in SAMPLING.items()]
        run.__signature__ = Signature([*own.values(), *more])
    return run


def help_texts(app: typer.Typer) -> str:
    """Markdown with the help of every command that is not hidden, 80 columns wide."""
    parts = ["# The command line\n", "Made by `storyforge page > docs/COMMANDS.md`; a test compares them.\n"]
    group = typer.main.get_command(app)
    for name, each in {"": group, **group.commands}.items():
        if not each.hidden:
            title = f"storyforge {name}".strip()
            context = typer.Context(each, info_name=title, terminal_width=80, max_content_width=80)
            context.help_option_names = HELP_OPTIONS
            parts.append(f"## {title}\n\n```\n{each.get_help(context)}\n```\n")
    return "\n".join(parts)


class Commands(TyperGroup):
    """UserError and wrong options end in one line on stderr; Ctrl-C in status 130."""

    def main(self, *args, standalone_mode: bool = True, **more) -> None:
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
