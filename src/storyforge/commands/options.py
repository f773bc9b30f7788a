"""What the commands share on the command line: where they run, how they fail, the options of sampling."""

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
    """An option that goes before a value of params.yaml."""
    return typer.Option(*names, show_default="params.yaml", **more)


SAMPLING = {
    "temperature": Annotated[float | None, instead(min=0, help="0: always the likeliest token.")],
    "top_p": Annotated[float | None, instead(min=0, max=1, help="Smallest set of tokens with that mass.")],
    "min_p": Annotated[float | None, instead(min=0, max=1, help="Tokens that likely, beside the likeliest.")],
    "repetition_penalty": Annotated[
        float | None, instead(help="Above 1: what was written is less likely again.")
    ],
    "max_new_tokens": Annotated[int | None, instead("--length", min=1, help="Most tokens of a reply.")],
    "seed": Annotated[int | None, instead(min=0, help="Same seed, same text.")],
}
Tuned = Annotated[
    Path | None,
    typer.Option(resolve_path=True, show_default="models/tuned", help="Folder of the tuned writer."),
]
More = Annotated[
    list[Path] | None,
    typer.Option("--adapter", resolve_path=True, help="Folder of one more writer; may be repeated."),
]
Presets = Annotated[
    list[str] | None,
    typer.Option("--preset", help="Kind or id of a prompt in data/prompts.yaml; may be repeated."),
]


def sampled(work: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `sampling`; it takes them as keywords, None where one was not given."""
    own = [each for each in signature(work).parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    more = [Parameter(n, Parameter.KEYWORD_ONLY, default=None, annotation=a) for n, a in SAMPLING.items()]
    work.__signature__ = signature(work).replace(parameters=[*own, *more])
    return work


def at_the_root(work: Callable[..., None]) -> Callable[..., None]:
    """Run a command from the repository's root, wherever in it the user stands."""

    @wraps(work)
    def run(**options) -> None:
        from storyforge.commands.repository import enter

        enter()
        work(**options)

    return run


class Commands(TyperGroup):
    """Every mistake is answered in one line, Ctrl-C not at all."""

    def main(self, *args, standalone_mode: bool = True, **more) -> None:
        from storyforge.commands.terminal import complain

        warnings.simplefilter("ignore", FutureWarning)  # libraries talking to each other, not to our user
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
    """Markdown with the help of every command that is not hidden; the same on every machine."""
    parts = ["# The command line\n", "Made by `storyforge page > docs/COMMANDS.md`; a test keeps it true.\n"]
    shown = {name: command for name, command in group.commands.items() if not command.hidden}
    for name, each in {"": group, **shown}.items():
        title = f"storyforge {name}".strip()
        context = typer.Context(each, info_name=title, terminal_width=100, max_content_width=100)
        context.help_option_names = ["-h", "--help"]
        parts.append(f"## {title}\n\n```\n{each.get_help(context)}\n```\n")
    return "\n".join(parts)
