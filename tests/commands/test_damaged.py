"""Every command that loads a model answers a damaged base or adapter in one line."""

import shutil

import pytest
from damage import damage
from ruamel.yaml import YAML
from typer.testing import CliRunner

from storyforge.cli import app

COMMANDS = {
    "sample": ("sample", "A duel."),
    "compare": ("compare", "A duel."),
    "chat": ("chat",),
    "export": ("export", "--type", "none"),
    "look": ("look", "train", "--tokens"),
}
SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_damage_is_one_line(command, seed, adapter, clone, tiny_model_dir):
    base = shutil.copytree(tiny_model_dir, clone / "base")
    params = YAML(typ="safe").load(clone / "params.yaml")
    params["model"]["origin"] = f"folder:{base}"
    YAML(typ="safe").dump(params, clone / "params.yaml")
    done = damage(adapter if seed % 2 else base, 200 + seed)
    result = CliRunner().invoke(app, COMMANDS[command], input="/quit\n", prog_name="storyforge")
    assert isinstance(result.exception, SystemExit | None), f"{done}: {result.exception!r}"
    if result.exit_code:
        said = [line for line in result.stderr.splitlines() if not line.startswith("/help")]
        assert result.exit_code == 1 and len(said) == 1 and said[0].startswith("error: "), (done, said)
