"""Every command starts at once, has an example, fails in one line and is in docs/COMMANDS.md."""

import os
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from storyforge import cli
from storyforge.core.errors import UserError

ROOT = Path(__file__).parents[1]
COMMANDS = typer.main.get_command(cli.app).commands
HEAVY = ("torch", "transformers", "peft", "rich", "ruamel", "huggingface_hub", "tqdm")


def invoke(*words: str):
    return CliRunner().invoke(cli.app, words, prog_name="storyforge")


@pytest.mark.parametrize("words", [[], ["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_loads_nothing_heavy(words):
    """torch alone takes two seconds; without these, help took 0.11 s."""
    code = (
        "import sys\nfrom storyforge.cli import app\ntry: app(sys.argv[1:])\nexcept SystemExit: pass\n"
        f"found = [name for name in {HEAVY} if name in sys.modules]\nprint('loaded', found)"
    )
    command = [sys.executable, "-c", code, *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "src")
    assert done.stdout.splitlines()[-1] == "loaded []", done.stdout + done.stderr


def test_no_command_loads_torch_before_it_needs_a_model():
    stems = sorted(file.stem for file in (ROOT / "src/storyforge/commands").glob("[a-z]*.py"))
    imports = ", ".join(f"storyforge.commands.{stem}" for stem in stems)
    code = f"import sys, {imports}; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "src")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_names_the_command(name):
    said = invoke(name, "--help").stdout
    assert f"\n    storyforge {name}" in said.partition("Example")[2]


def test_the_examples_parse():
    """Each example of a help text is a command line of that command."""
    for name, command in COMMANDS.items():
        for line in (line.strip() for line in command.help.splitlines()):
            if line.startswith("storyforge "):
                words = shlex.split(line.partition(" && ")[0].partition(" > ")[0])[2:]
                command.make_context(name, words)


def test_the_documentation_shows_the_help_of_today():
    page = (ROOT / "docs/COMMANDS.md").read_text(encoding="utf-8")
    assert page == invoke("page").stdout, "run `storyforge page > docs/COMMANDS.md`"


def test_help_fits_80_columns_and_the_list_of_commands_is_not_cut():
    lines = (ROOT / "docs/COMMANDS.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 80] == []
    assert "..." not in invoke("--help").stdout.partition("Commands:")[2]


def test_the_version_is_the_packages():
    values = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert invoke("--version").stdout == f"storyforge {values['project']['version']}\n"


@pytest.mark.parametrize(
    ("shell", "typed", "expected"),
    [
        ("bash", "storyforge lo", "look"),
        ("bash", "storyforge estimate --re", "--recipe"),
        ("zsh", "storyforge exp", "export"),
    ],
)
def test_a_shell_completes_commands_and_options(shell, typed, expected):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_TYPER_COMPLETE_ARGS": typed}
    env = os.environ | words | {"_STORYFORGE_COMPLETE": f"complete_{shell}", "PYTHONPATH": str(ROOT / "src")}
    code = "from storyforge.cli import app; app(prog_name='storyforge')"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert expected in done.stdout and "sample" not in done.stdout


@pytest.mark.parametrize("module", ["storyforge.cli", "storyforge.demo"])
def test_what_loads_a_model_first_tells_threads_how_long_to_spin(module, tmp_path):
    """Outside a clone, so that the demo ends before it loads torch."""
    code = f"import os, sys, {module}; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    env = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    env |= {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "20000 False\n", done.stderr


@pytest.mark.parametrize("module", ["storyforge.cli", "storyforge.train.stage"])
def test_on_windows_the_remedy_is_one_line(module):
    code = f"import sys; sys.platform = 'win32'; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: StoryForge runs on Linux and macOS; on Windows, run it in WSL\n"


@pytest.mark.parametrize("width", ["40", "200"])
def test_the_documentation_does_not_depend_on_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    assert invoke("page").stdout == (ROOT / "docs/COMMANDS.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense': see `storyforge --help`"),
        (["verify", "--nonsense"], "No such option: --nonsense: see `storyforge verify --help`"),
        (["sample", "a", "b"], "Got unexpected extra argument(s) (b): see `storyforge sample --help`"),
        (["chat", "--seed", "one"], "Invalid value for '--seed'"),
        (["compare", "--top-p", "2"], "Invalid value for '--top-p'"),
        (["look", "--count", "0"], "Invalid value for '--count' / '-n'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(words, complaint):
    done = invoke(*words)
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {complaint}")


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.hidden])
def test_outside_a_clone_every_command_says_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = invoke(name, *{"continue": ["story.txt"], "recipe": ["my-stories"]}.get(name, []))
    assert done.exit_code == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}: no dvc.yaml and params.yaml here or above")


@pytest.mark.parametrize(
    ("error", "status", "said"), [(KeyboardInterrupt, 130, ""), (UserError("No."), 1, "error: No.\n")]
)
def test_an_interruption_is_quiet_and_a_mistake_one_line(monkeypatch, error, status, said):
    def stopped():
        raise error

    monkeypatch.setattr("storyforge.commands.repository.enter", stopped)
    done = invoke("verify")
    assert (done.exit_code, done.stdout, done.stderr) == (status, "", said)
