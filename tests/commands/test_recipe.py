"""A base laid over a recipe: its keys change, all else stays, and what cannot be laid is one line."""

import difflib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from storyforge.commands.estimate import planned
from storyforge.commands.plan import GIB
from storyforge.commands.recipe import header, laid

ROOT = Path(__file__).parents[2]
BASES = sorted((ROOT / "recipes/bases").glob("*.yaml"))
RECIPES = [ROOT / "params.yaml", *sorted((ROOT / "recipes").glob("*.yaml"))]
KEYS = {f"model.{key}" for key in ("name", "origin", "sha256", "chat", "quantization")}
KEYS |= {
    f"{part}.{key}" for part in ("train", "align") for key in ("learning_rate", "gradient_checkpointing")
}
each_base = pytest.mark.parametrize("base", BASES, ids=lambda file: file.stem)


def flat(values, path=""):
    if not isinstance(values, dict) or not values:
        return {path: values}
    parts = (flat(value, f"{path}.{key}".strip(".")) for key, value in values.items())
    return {key: value for part in parts for key, value in part.items()}


def read(text):
    return flat(YAML(typ="safe").load(text))


def comments(text):
    return re.findall(r"(?<=\s)#.*|^#.*", text, re.MULTILINE)


@each_base
def test_over_any_recipe_the_keys_of_the_base_change_and_the_comments_stay(base):
    wanted = read(base.read_text("utf-8"))
    assert wanted.keys() == KEYS
    for recipe in RECIPES:
        before, after = recipe.read_text("utf-8"), laid(recipe, base)
        assert read(after) == read(before) | wanted
        mark, *kept = comments(after)
        assert kept == comments(before) and mark.startswith(f"# Base: {base}, ")
        lines = difflib.ndiff(before.splitlines(), after.splitlines())
        removed = [line for line in lines if line.startswith("- ")]
        assert len(removed) <= len(KEYS) + 1  # an origin may stand on two lines


def test_laid_over_another_base_nothing_of_that_one_is_left(tmp_path):
    once = tmp_path / "params.yaml"
    once.write_text(laid(ROOT / "recipes/my-stories.yaml", BASES[0]))
    assert laid(once, BASES[-1]) == laid(ROOT / "recipes/my-stories.yaml", BASES[-1])


@each_base
def test_a_header_says_command_hardware_licence_and_what_is_known(base):
    title, *rest = header(base)
    assert title.endswith(".") and [line.split()[0] for line in rest] == [
        "command",
        "hardware",
        "licence",
        "result",
    ]
    assert f"make recipe NAME=my-stories BASE={base.stem} && make repro" in rest[0]
    assert ("gated: accept" in rest[2]) == ("llama" in base.stem or "gemma" in base.stem)


def test_the_page_lists_each_base_with_the_sizes_that_are_calculated():
    page = (ROOT / "docs/BASES.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| `([\w.-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows.keys() == {base.stem for base in BASES}
    for base in BASES:
        found = planned(ROOT / "recipes/my-stories.yaml", base, None)
        sizes = [f"{found[key] / GIB:.1f} GiB" for key in ("peak_memory_bytes", "base_bytes")]
        model, _, *shown = rows[base.stem].split(" | ")
        assert shown[:2] == sizes
        assert found["model"].endswith("/" + model.partition(",")[0])
        assert ("4 bits" in model) == (found["method"] == "QLoRA")


@pytest.fixture
def repository(clone):
    shutil.copytree(ROOT / "recipes", clone / "recipes")
    return clone


def test_params_are_written_and_the_bases_header_is_shown(repository, storyforge, monkeypatch):
    monkeypatch.chdir(repository / "data")
    done = storyforge("recipe", "my-stories", "--base", "qwen3-4b")
    text = (repository / "params.yaml").read_text()
    assert "\n  name: Qwen/Qwen3-4B                            # the base, as" in text
    assert "\n  quantization: nf4             # none, or nf4 on CUDA\n" in text
    assert done.stdout == "" and "Apache-2.0, not gated" in done.stderr
    storyforge("recipe", "my-stories")
    assert (repository / "params.yaml").read_bytes() == (ROOT / "recipes/my-stories.yaml").read_bytes()
    storyforge("recipe", "params.yaml", "--base", "smollm2-360m")  # `storyforge` stays at the root
    assert "name: HuggingFaceTB/SmolLM2-360M-Instruct" in (repository / "params.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "text", "said"),
    [
        (["none"], "", r"recipe none: no such recipe or file; recipes/ has: llama.*, my-stories"),
        (["my-stories", "--base", "none"], "", r"base none: .*; recipes/bases/ has: .*, mine, .*"),
        (
            ["my-stories", "--base", "mine"],
            "model: {nam: a}",
            r"recipes/bases/mine.yaml: model.nam is no key of ",
        ),
        (
            ["my-stories", "--base", "mine"],
            "modle: {name: a}",
            "recipes/bases/mine.yaml: modle is no key of ",
        ),
        (["my-stories", "--base", "mine"], "train: 3", "recipes/bases/mine.yaml: train is no key of "),
        (["my-stories", "--base", "mine"], "model: {name: {a: 1}}", ".*mine.yaml: model.name is no key of "),
        (["my-stories", "--base", "mine"], "", "recipes/bases/mine.yaml: has no sections"),
        (["my-stories", "--base", "mine"], "model: [", "recipes/bases/mine.yaml: cannot be read: "),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(words, text, said, repository, storyforge):
    (repository / "recipes/bases/mine.yaml").write_text(text)
    before = (repository / "params.yaml").read_bytes()
    done = storyforge("recipe", *words, status=1)
    assert re.match(f"error: {said}", done.stderr) and done.stderr.count("\n") == 1
    assert (repository / "params.yaml").read_bytes() == before


def test_an_estimate_is_of_the_recipe_on_the_base(repository, storyforge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    said = storyforge("estimate", "--recipe", "my-stories", "--base", "qwen3-4b").stdout
    assert "recipes/my-stories.yaml on recipes/bases/qwen3-4b.yaml: Qwen/Qwen3-4B, QLoRA" in said
    assert "about 6.2 GiB with 2,048 tokens at once" in said
    assert "HuggingFaceTB/SmolLM2-360M-Instruct" in storyforge("estimate", "--base", "smollm2-360m").stdout
    mine = repository / "recipes/bases/mine.yaml"
    mine.write_text("model: {name: me/mine}\n")
    said = storyforge("estimate", "--recipe", "my-stories", "--base", "mine").stdout
    assert "unknown: the model is not in ARCHITECTURES" in said
    mine.write_text("train: {learning_rate: fast}\n")
    said = storyforge("estimate", "--recipe", "my-stories", "--base", "mine", status=1).stderr
    assert "error: recipes/my-stories.yaml on recipes/bases/mine.yaml: train.learning_rate = 'fast'" in said
    said = storyforge("estimate", "--base", "qwen3-4b", "--steps", "3", status=1).stderr
    assert "leave --recipe and --base out" in said


def test_make_copies_a_recipe_without_an_installation_and_asks_for_one_with_a_base(tmp_path):
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")

    def make(*words: str) -> subprocess.CompletedProcess:
        # `make test` runs this test: a make within another names the folder that it enters.
        command = ["make", "--no-print-directory", "recipe", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    assert make("NAME=my-stories").returncode == 0 and not (tmp_path / ".venv").exists()
    recipe = (ROOT / "recipes/my-stories.yaml").read_bytes()
    assert (tmp_path / "params.yaml").read_bytes() == recipe
    assert "error: no recipe 'bases/qwen3-4b'; there are: llama" in make("NAME=bases/qwen3-4b").stderr
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    planned = make("--dry-run", "NAME=my-stories", "BASE=qwen3-4b").stdout.splitlines()
    assert any("-m venv" in line for line in planned)
    assert planned[-1] == ".venv/bin/storyforge recipe 'my-stories' --base 'qwen3-4b'"
