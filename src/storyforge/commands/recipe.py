"""params.yaml from a recipe, and a base model laid over it."""

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from storyforge.commands.terminal import aside
from storyforge.core.errors import UserError

RECIPES, BASES = Path("recipes"), Path("recipes/bases")
MARK = "# Base: "  # the first line of what was laid


def make(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A name in recipes/, or a file.", show_default=False)],
    *,
    base: Annotated[str | None, typer.Option(help="A name in recipes/bases/, or a file.")] = None,
) -> None:
    """Make a recipe params.yaml, on its own base model or another.

    A base is a file of the keys that differ, most of them in the section `model`. What params.yaml held
    is replaced; the recipe's comments stay.

    \b
    Examples:
      storyforge recipe my-stories --base qwen3-4b
      storyforge recipe params.yaml --base llama-3.2-1b
    """
    from storyforge.core.files import published
    from storyforge.core.params import PARAMS

    home = context.find_root().obj
    file = located(name, RECIPES, home, "recipe")
    over = located(base, BASES, home, "base") if base else None
    text = laid(file, over) if over else file.read_text(encoding="utf-8")
    with published(PARAMS) as place:
        place.write(text.encode())
    for line in header(over or file):
        aside(line)


def located(name: str, folder: Path, home: Path, kind: str) -> Path:
    """The file `name` stands for: in the folder, or relative to `home`."""
    for file in (folder / f"{name}.yaml", home / name):
        if file.is_file():
            return file
    known = ", ".join(sorted(each.stem for each in folder.glob("*.yaml"))) or "none"
    raise UserError(f"{kind} {name}: no such {kind} or file; {folder}/ has: {known}")


def header(file: Path) -> list[str]:
    """The lines of comment that a recipe or a base begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    end = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return [line.removeprefix("#").strip() for line in lines[:end]]


def laid(recipe: Path, base: Path) -> str:
    """The recipe's text with the values of the base, in the form that DVC writes.

    UserError where the base has a key that the recipe has not.
    """
    from ruamel.yaml import YAML

    from storyforge.core.files import read_yaml

    yaml, found = YAML(), []
    for file in (recipe, base):
        if not isinstance(read_yaml(file), dict):  # it has its own words for a broken file
            raise UserError(f"{file}: has no sections")
        found.append(yaml.load(file.read_text(encoding="utf-8")))
    params, changes = found
    _lay(changes, params, f"{base}: ", f"no key of {recipe}")
    out = io.StringIO()
    yaml.dump(params, out)
    lines = out.getvalue().splitlines(keepends=True)
    rest = lines[1:] if lines[0].startswith(MARK) else lines
    return "".join((f"{MARK}{base}, laid over this; hardware and time below are the recipe's own.\n", *rest))


def _lay(changes: dict[str, Any], params: dict[str, Any], place: str, why: str) -> None:
    for key, value in changes.items():
        if key not in params or isinstance(value, dict) != isinstance(params[key], dict):
            raise UserError(f"{place}{key} is {why}")
        if isinstance(value, dict):
            _lay(value, params[key], f"{place}{key}.", why)
        else:
            params[key] = value
