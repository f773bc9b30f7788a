"""Plans of the recipes: counts and sizes by hand, rates as their sources have them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from storyforge.commands.plan import ARCHITECTURES, GIB, MACHINES, PUBLISHED, plan
from storyforge.core.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def changed(tmp_path):
    """A recipe with some values changed: `changed("llama-3.1-8b", {"train.epochs": 1})`."""

    def make(name: str, changes: dict) -> Path:
        values = YAML(typ="safe").load(ROOT / "recipes" / f"{name}.yaml")
        for path, value in changes.items():
            *groups, key = path.split(".")
            group = values
            for each in groups:
                group = group[each]
            group[key] = value
        YAML(typ="safe").dump(values, tmp_path / "recipe.yaml")
        return tmp_path / "recipe.yaml"

    return make


def rows(found):
    return {row["machine"]: row for row in found["hardware"]}


def test_the_headline_recipe_takes_27_million_tokens_an_epoch():
    """94 % of 30,000 × 785 and of 20,000 × 285 are trained on, three times, in batches of 16."""
    found = plan(ROOT / "recipes/llama-3.1-8b.yaml")
    assert found["stories"] == {"writingprompts": 28_200, "tinystories": 18_800}
    assert found["tokens_an_epoch"] == 28_200 * 785 + 18_800 * 285 == 27_495_000
    assert (found["tokens"], found["steps"]) == (82_485_000, 3 * 2938)
    assert not found["at_most"]


def test_hours_are_tokens_by_the_published_rate_and_nothing_else_is_shown():
    found = plan(ROOT / "recipes/llama-3.1-8b.yaml", price_per_hour=2)
    by_machine = rows(found)
    card = by_machine["RTX 4090"]
    assert card["tokens_per_second"] == 2413 and "torchtune" in card["source"]
    assert card["hours"] == pytest.approx(82_485_000 / 2413 / 3600) and card["cost"] == 2 * card["hours"]
    assert by_machine["A100"]["note"] == "of Llama-2-7B" and "LLaMA-Factory" in by_machine["A100"]["source"]
    for name, note in {
        "T4": "no published rate",
        "H100": "no published rate",
        "Mac M4": "NF4 needs CUDA",
    }.items():
        row = by_machine[name]
        assert row["note"] == note
        assert row["hours"] is row["tokens_per_second"] is row["cost"] is row["source"] is None


def test_every_published_rate_is_of_a_known_machine_and_has_a_source():
    assert {machine for machine, *_ in PUBLISHED} <= set(MACHINES)
    assert all(rate > 0 and source for rate, source in PUBLISHED.values())


def test_our_own_rate_is_the_one_of_the_benchmark():
    page = (ROOT / "benchmarks/results/bfloat16.md").read_text(encoding="utf-8")
    rate, _ = PUBLISHED["2 CPU cores", "LoRA", "SmolLM2-135M"]
    assert rate == int(re.search(r"\| StoryForge +\| +(\d+)", page)[1])


def test_the_default_run_is_planned_as_it_was_measured():
    found, measured = plan(ROOT / "params.yaml"), json.loads((ROOT / "metrics/train.json").read_text())
    assert found["steps"] == measured["steps"] and found["tokens"] == pytest.approx(
        measured["tokens"], rel=0.05
    )
    report = (ROOT / "reports/report.md").read_text(encoding="utf-8")
    assert f"A LoRA adapter of {found['trainable_parameters']:,} parameters" in report
    rows = json.loads((ROOT / "metrics/preprocess.json").read_text())["train_stories"]
    assert found["stories"] == {"shakespeare": rows}


@pytest.mark.parametrize(
    ("name", "weights", "adapter"),
    [
        ("SmolLM2-135M", 134_515_008, 4_884_480),
        ("SmolLM2-360M", 361_821_120, 8_683_520),
        ("SmolLM2-1.7B", 1_711_376_384, 18_087_936),
        ("Llama-3.2-1B", 1_235_814_400, 11_272_192),
        ("Llama-3.2-3B", 3_212_749_824, 24_313_856),
        ("Llama-3.1-8B", 8_030_261_248, 41_943_040),
        ("Llama-3.1-70B", 70_553_706_496, 207_093_760),
        ("Qwen3-0.6B", 596_049_920, 10_092_544),
        ("Qwen3-4B", 4_022_468_096, 33_030_144),
        ("Qwen3-8B", 8_190_735_360, 43_646_976),
        ("SmolLM3-3B", 3_075_098_624, 30_228_480),
        ("gemma-3-1b-it", 999_885_952, 13_045_760),
        ("Mistral-Nemo-Instruct-2407", 12_247_782_400, 57_016_320),
    ],
)
def test_architectures_have_the_weights_that_the_models_have(changed, name, weights, adapter):
    """The hub's counts, in which each layer has two norms more, and the model one; rank 16.

    Qwen3 has norms of queries and keys besides, Gemma 3 these and two more.
    """
    found, shape = plan(changed("llama-3.1-8b", {"model.name": name})), ARCHITECTURES[name]
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    if name.startswith(("Qwen3", "gemma")):
        norms += shape.num_hidden_layers * 2 * shape.head_dim
    if name.startswith("gemma"):
        norms += shape.num_hidden_layers * 2 * shape.hidden_size
    assert found["base_bytes"] == 2 * (weights - norms)
    assert found["trainable_parameters"] == adapter


def test_memory_of_8b_in_4_bits_lies_above_torchtunes_and_fits_a_t4():
    """torchtune's README: 7.4 GiB with 4,096 tokens at once; the weights alone are 5.6."""
    peak = plan(ROOT / "recipes/llama-3.1-8b.yaml")["peak_memory_bytes"] / GIB
    assert 7.4 < peak < 15


def test_a_model_that_does_not_fit_has_no_hours(changed):
    found = plan(changed("llama-3.1-8b", {"model.name": "meta-llama/Llama-3.1-70B-Instruct"}))
    assert {name for name, row in rows(found).items() if row["note"] == "does not fit"} == {"T4", "RTX 4090"}


def test_an_unknown_model_has_tokens_but_neither_memory_nor_hours(changed, storyforge, clone):
    file = changed("llama-3.1-8b", {"model.name": "me/mine"})
    said = storyforge("estimate", "--recipe", str(file)).stdout
    assert "27.5 M an epoch" in said and "unknown: the model is not in ARCHITECTURES" in said
    assert plan(file)["peak_memory_bytes"] is None


@pytest.mark.parametrize(
    ("changes", "stories", "at_most"),
    [
        ({"train.max_tokens": 1024}, 28_200, True),  # longer stories are cut
        ({"preprocess.profiles.writingprompts.keep": None}, 42_300, True),  # filters drop some of 45,000
        ({"collect.writingprompts.stories": 1000}, 940, False),  # fewer than are kept at most
    ],
)
def test_what_is_only_a_bound_is_called_one(changed, changes, stories, at_most):
    found = plan(changed("llama-3.1-8b", changes))
    assert (found["stories"]["writingprompts"], found["at_most"]) == (stories, at_most)


def test_a_source_that_the_recipe_leaves_out_is_not_counted(changed):
    file = changed("llama-3.1-8b", {})
    values = YAML(typ="safe").load(file)
    del values["collect"]["tinystories"], values["preprocess"]["profiles"]["tinystories"]
    YAML(typ="safe").dump(values, file)
    assert list(plan(file)["stories"]) == ["writingprompts"]


def test_of_plays_that_are_cut_into_passages_fewer_scenes_give_a_bound(changed):
    file = changed("../params", {"collect.shakespeare.stories": 10})
    found = plan(file)
    assert (found["stories"], found["at_most"]) == ({"shakespeare": 4137}, True)


def test_own_stories_are_bounded_by_steps_and_length(changed, clone, storyforge):
    found = plan(ROOT / "recipes/my-stories.yaml")
    assert (found["tokens"], found["at_most"]) == (300 * 2 * 1024, True)
    said = storyforge("estimate", "--recipe", str(changed("my-stories", {"train.max_steps": None}))).stdout
    assert "tokens     unknown before `dvc repro preprocess`" in said


def test_people_read_the_plan_in_80_columns(clone, storyforge, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = storyforge(
        "estimate", "--recipe", str(ROOT / "recipes/llama-3.1-8b.yaml"), "--price-per-hour", "2"
    )
    assert "27.5 M an epoch, 82.5 M in 8,814 steps" in done.stdout and "≥" not in done.stdout
    assert re.search(r"\nRTX 4090 +24 GiB +2,413 +9.5 h +18.99 +published", done.stdout)
    assert "RTX 4090: torchtune's README" in done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_recipe_is_a_name_or_a_file_beside_the_user(clone, storyforge, monkeypatch):
    (clone / "recipes").mkdir()
    (clone / "params.yaml").rename(clone / "recipes/mine.yaml")
    (clone / "params.yaml").write_text((clone / "recipes/mine.yaml").read_text())
    assert storyforge("estimate", "--recipe", "mine").stdout.startswith("recipe   recipes/mine.yaml: ")
    monkeypatch.chdir(clone / "recipes")
    monkeypatch.setenv("COLUMNS", "300")
    assert "mine.yaml: " in storyforge("estimate", "--recipe", "mine.yaml").stdout
    said = storyforge("estimate", "--recipe", "no", status=1).stderr
    assert said == "error: recipe no: no such recipe or file; recipes/ has: mine\n"


def test_a_recipe_without_a_needed_key_is_named(changed):
    with pytest.raises(
        UserError, match=r"recipe.yaml: train.epochs = 'two': Input should be a valid integer"
    ):
        plan(changed("llama-3.1-8b", {"train.epochs": "two"}))


def test_a_plan_loads_neither_torch_nor_data():
    code = (
        "import sys\nfrom storyforge.cli import app\n"
        "try: app(['estimate', '--recipe', 'llama-3.1-8b'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src")
    assert done.returncode == 0 and "27.5 M an epoch" in done.stdout, done.stderr
