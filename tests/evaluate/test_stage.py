import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from wandb_runs import offline_runs

from storyforge.core.errors import UserError
from storyforge.core.files import dumps, read_json, read_jsonl, write_jsonl
from storyforge.core.records import Exchange, Prompt
from storyforge.evaluate import figures, sixteen, stage
from storyforge.evaluate.losses import Scored
from storyforge.model.loading import adapter_weights, load_adapter, load_base, load_encoder, save_adapter

ROOT = Path(__file__).parents[2]
PARAMS = {
    "seed": 1,
    "stories": None,
    "max_tokens": 200,
    "batch_tokens": 500,
    "samples_per_prompt": 2,
    "prompts": {"kinds": [], "held_out": 0},
    "opening_words": 26,
    "prompt_use": {"stories": 4, "distractors": 2, "reply_tokens": 20},
}
GENERAL = Exchange("tides", "explanation", "tides", "Why are there tides?", "The moon pulls.", True)
SAMPLING = {
    "seed": 5,
    "max_new_tokens": 8,
    "temperature": 0.8,
    "top_p": 0.95,
    "min_p": 0.0,
    "repetition_penalty": 1.1,
}
PROMPTS = [
    {"id": "rain", "kind": "mystery", "prompt": "Tell of rain."},
    {"id": "sea", "kind": "horror", "prompt": "Tell of the sea."},
]


@pytest.fixture
def workspace(tmp_path, monkeypatch, exchanges, model_params, tuned):
    """A folder with everything the stage reads; returns a function that runs it there."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "processed" / "test.jsonl", exchanges)
    write_jsonl(tmp_path / "processed" / "train.jsonl", exchanges[:1])
    write_jsonl(tmp_path / "general.jsonl", [GENERAL, replace(GENERAL, id="bread", group="bread")])
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    YAML().dump({"prompts": PROMPTS}, tmp_path / "prompts.yaml")

    def run(wandb=False, **changes):
        sections = {"model": model_params.model_dump(mode="json"), "sampling": SAMPLING}
        sections["tracking"] = {"wandb": wandb}
        YAML().dump({**sections, "evaluate": {**PARAMS, **changes}}, tmp_path / "params.yaml")
        names = ("processed", "tuned", "prompts.yaml", "general.jsonl", "out", "metrics.json")
        stage.main(*(tmp_path / name for name in names))
        return json.loads((tmp_path / "metrics.json").read_text())

    run.folder = tmp_path
    run.details = lambda: read_json(tmp_path / "out" / "details.json")
    return run


def leaves(tree):
    return sum(map(leaves, tree.values())) if isinstance(tree, dict) else 1


def test_metrics_are_the_few_figures_that_a_person_compares(workspace):
    """`dvc exp show` gives each a column, `dvc metrics diff` a line."""
    metrics = workspace()
    assert list(metrics) == ["improvement", "base", "tuned", "general", "prompt_use"]
    assert leaves(metrics) <= 10
    gain = metrics["improvement"]
    assert gain["low"] <= gain["nats_per_token"] <= gain["high"]
    assert gain["nats_per_token"] == pytest.approx(
        metrics["base"]["loss"] - metrics["tuned"]["loss"], abs=2e-6
    )
    assert metrics["prompt_use"]["gain"] is not None and metrics["general"]["gain"] != 0


def test_details_hold_base_tuned_and_the_interval_overall_and_by_source(workspace):
    metrics, details = workspace(), workspace.details()
    assert list(details["base"]) == list(details["tuned"]) == ["loss", "perplexity", "bits_per_byte"]
    assert details["improvement"].items() >= metrics["improvement"].items()
    assert details["tuned"]["perplexity"] == metrics["tuned"]["perplexity"]
    assert list(details["sources"]) == ["made"]
    assert details["sources"]["made"]["base"] == details["base"]
    assert details["improvement"]["groups"] == len(details["groups"]) == 3 and details["stories"] == 9


def test_thousands_of_groups_are_not_listed_one_by_one(workspace, exchanges, monkeypatch):
    monkeypatch.setattr(figures, "MOST_GROUPS", 2)
    workspace()
    assert workspace.details()["groups"] == {}


def test_wandb_gets_the_figures_and_a_table_of_both_writers(workspace, nobody):
    metrics = workspace(wandb=True)
    (run,) = offline_runs(nobody)
    assert run["summary"]["improvement"] == metrics["improvement"]
    (table,) = run["file"].parent.glob("files/media/table/samples_*.table.json")
    found = [dict(zip(read_json(table)["columns"], row, strict=True)) for row in read_json(table)["data"]]
    written = list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))
    assert [(row["prompt"], row["base"], row["tuned"]) for row in found] == [
        (row["prompt"], row["base"]["text"], row["tuned"]["text"]) for row in written
    ]


def test_the_two_writers_are_the_base_and_the_adapter(workspace, model_params, encoded):
    workspace()
    scored = {row.id: row for row in read_jsonl(workspace.folder / "out" / "stories.jsonl", Scored)}
    base = load_base(model_params)
    base_nll = stage.losses(base, encoded, 1000, "base")
    tuned_nll = stage.losses(
        load_adapter(base, workspace.folder / "tuned", model_params), encoded, 1000, "tuned"
    )
    for row in encoded:
        assert scored[row.id].base == pytest.approx(base_nll[row.id], rel=1e-6)
        assert scored[row.id].tuned == pytest.approx(tuned_nll[row.id], rel=1e-6)
        assert scored[row.id].tokens == row.reply_tokens
    assert base_nll != tuned_nll


@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_batch_size_and_padding_do_not_change_the_numbers(workspace, batch_tokens):
    usual, other = workspace(), workspace(batch_tokens=batch_tokens)
    for writer in ("base", "tuned"):
        assert other[writer]["loss"] == pytest.approx(usual[writer]["loss"], abs=2e-6)
    assert other["improvement"]["low"] == pytest.approx(usual["improvement"]["low"], abs=2e-6)


def test_a_second_evaluation_writes_the_same_bytes(workspace):
    def content():
        workspace()
        return {path.name: path.read_bytes() for path in (workspace.folder / "out").iterdir()}

    first = content()
    names = ["choices.jsonl", "details.json", "general.jsonl", "samples.jsonl", "stories.jsonl"]
    assert sorted(first) == names
    assert content() == first


NOTED = """
import os
from pathlib import Path
from storyforge.core import before_torch
from storyforge.evaluate import answers, stage
from storyforge.model.processes import launch_all
def noted(module, name):
    real = getattr(module, name)
    def note(*arguments, **options):
        Path(f"{name}-{os.environ['RANK']}").touch()
        return real(*arguments, **options)
    setattr(module, name, note)
for module, name in ((stage, "story_nll"), (answers, "write"), (stage, "published_folder")):
    noted(module, name)
launch_all(stage.main)
"""


def test_two_processes_share_the_work_out_and_write_the_bytes_of_one(workspace, monkeypatch):
    def content():
        files = [*(here / "out").iterdir(), here / "metrics.json"]
        return {path.name: path.read_bytes() for path in files}

    here = workspace.folder
    workspace(samples_per_prompt=20)  # two batches
    alone = content()
    shutil.rmtree(here / "out")
    (here / "engine.yaml").write_text("gpus: 2")
    (here / "noted.py").write_text(NOTED)
    names = ("processed", "tuned", "prompts.yaml", "general.jsonl", "out", "metrics.json", "timing.json")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "STORYFORGE_ALLOW_CPU": "1"}
    subprocess.run([sys.executable, "noted.py", *names], cwd=here, env=env, check=True, timeout=300)
    assert content() == alone
    noted = {path.name for path in here.iterdir() if path.name[-2:] in ("-0", "-1")}
    assert noted == {"story_nll-0", "story_nll-1", "write-0", "write-1", "published_folder-0"}
    assert read_json(here / "timing.json")["tokens_per_second"] > 0


def test_a_base_in_4_bits_is_compared_with_itself_in_16_too(workspace, model_params, encoded):
    """In a process of its own: elsewhere bitsandbytes is not imported where there is no CUDA."""
    here, usual = workspace.folder, model_params.model_copy(update={"precision": "bf16"})
    assert "base_16bit" not in workspace() and "base_16bit" not in workspace.details()
    params = YAML(typ="safe").load(here / "params.yaml")
    params["model"] |= {"quantization": "nf4", "precision": "bf16"}
    YAML().dump(params, here / "params.yaml")
    names = ("processed", "tuned", "prompts.yaml", "general.jsonl", "out", "metrics.json", "timing.json")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "STORYFORGE_ALLOW_CPU": "1"}
    command = [sys.executable, "-m", "storyforge.evaluate.stage", *names]
    subprocess.run(command, cwd=here, env=env, check=True, timeout=300)
    details, metrics = workspace.details(), read_json(here / "metrics.json")
    whole = details["base_16bit"]
    nlls, tokens = stage.losses(load_base(usual), encoded, 1000, "base"), sum(r.reply_tokens for r in encoded)
    assert whole["base"]["loss"] == pytest.approx(sum(nlls.values()) / tokens, abs=2e-3)
    assert abs(details["base"]["loss"] - whole["base"]["loss"]) > 5e-3  # what 4 bits change
    assert whole["tuned"] == details["tuned"]
    saved = whole["base"]["loss"] - details["tuned"]["loss"]
    assert whole["improvement"]["nats_per_token"] == pytest.approx(saved, abs=2e-6)
    assert whole["improvement"]["low"] < saved < whole["improvement"]["high"]
    assert metrics["base_16bit"] == {
        "loss": whole["base"]["loss"],
        "gain": whole["improvement"]["nats_per_token"],
    }


def scored(encoded):
    return [
        Scored(row.id, row.source, row.group, row.reply_tokens, row.reply_bytes, 9.0, 8.0) for row in encoded
    ]


def test_where_memory_has_no_room_for_16_bits_that_is_said_and_nothing_loaded(
    model_params, encoded, monkeypatch
):
    monkeypatch.setattr(sixteen, "memory_limit", lambda: sixteen.ROOM)
    monkeypatch.setattr(sixteen, "load_base", None)
    found = sixteen.in_16_bits(model_params, scored(encoded), None)
    assert found == {"not_measured": "it takes 2.0 GiB, and there are 2.0"}
    assert sixteen.in_16_bits(model_params, [], None) == {"not_measured": "no story is held out"}
    assert figures._loss_and_gain(found) == {"loss": None, "gain": None}


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory."), UserError("no room")])
def test_memory_that_runs_out_all_the_same_loses_nothing(model_params, encoded, error):
    def score(model):
        raise error

    found = sixteen.in_16_bits(model_params, scored(encoded), score)
    assert found == {"not_measured": "memory ran out"}
    with pytest.raises(RuntimeError, match="a bug"):
        sixteen.in_16_bits(model_params, scored(encoded), lambda model: exec("raise RuntimeError('a bug')"))


def test_weights_are_counted_as_they_are_stored(model_params, base):
    assert sixteen._numbers(model_params) == base.num_parameters()


def test_both_writers_answer_every_prompt_as_often_as_wanted_with_the_same_seeds(workspace):
    workspace()
    pairs = list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))
    assert [(pair["id"], pair["sample"]) for pair in pairs] == [
        ("rain", 0),
        ("rain", 1),
        ("sea", 0),
        ("sea", 1),
    ]
    assert all(pair["base"]["tokens"] == 8 or pair["base"]["ended"] for pair in pairs)
    assert any(pair["base"]["text"] != pair["tuned"]["text"] for pair in pairs)
    assert len({pair["seed"] for pair in pairs}) == 4
    assert pairs[0]["base"]["text"] != pairs[1]["base"]["text"]
    assert workspace.details()["writing"]["samples"] == 4


def test_more_samples_leave_the_first_ones_as_they_are(workspace):
    workspace(samples_per_prompt=1)
    one = list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))
    workspace(samples_per_prompt=2)
    two = list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))
    assert [pair for pair in two if pair["sample"] == 0] == one


def test_general_text_is_scored_as_a_reply_and_told_apart_by_kind(workspace, model_params, encoder):
    workspace()
    base, details = load_base(model_params), workspace.details()
    row = encoder.exchange(GENERAL, 200)
    nll = stage.losses(base, [row], 1000, "base")["tides"]
    assert details["general"]["base"]["loss"] == pytest.approx(nll / row.reply_tokens, abs=2e-6)
    assert details["general"]["improvement"]["groups"] == 2
    assert list(details["general_kinds"]) == ["explanation"]


def test_prompt_use_counts_the_wanted_stories_under_others_prompts(workspace):
    metrics, found = workspace(), workspace.details()["prompt_use"]
    assert metrics["prompt_use"]["gain"] == found["shuffled_cost_gain"]["value"]
    assert found["stories"] == 4 and found["chance"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["base"]["loss"] != found["base"]["shuffled_loss"]
    choices = list(read_jsonl(workspace.folder / "out" / "choices.jsonl", dict))
    assert all(len(choice["base"]) == len(choice["tuned"]) == 3 for choice in choices)
    assert all(0 < choice["tokens"] <= 20 for choice in choices)


def test_test_stories_of_one_prompt_leave_nothing_to_choose_from(workspace, exchanges):
    same = [replace(story, prompt="Tell.") for story in exchanges]
    write_jsonl(workspace.folder / "processed" / "test.jsonl", same)
    assert workspace()["prompt_use"] == {"gain": None} and workspace.details()["prompt_use"] is None


def answer(text):
    return {"text": text, "tokens": 9, "ended": True}


def test_what_was_written_is_held_against_training_and_test_stories():
    text = " ".join(f"word{n}" for n in range(40)) + "."
    story = replace(GENERAL, story=text)
    pairs = [{"id": "rain", "prompt": "Tell.", "base": answer(text), "tuned": answer(text.upper() + " No.")}]
    params = stage.EvaluateParams(**PARAMS)
    found = stage.writing(
        pairs, [replace(story, id=f"s{n}", story=f"{n} {text}") for n in range(60)], [story], params
    )
    assert found["compared"] == 1
    assert found["measures"]["copied_8"]["base"] == found["measures"]["copied_8"]["tuned"] == 1
    assert found["measures"]["distinct_2"]["corpus"]["median"] == 1


def test_the_general_text_of_the_repository_is_exchanges_of_several_kinds():
    rows = list(read_jsonl(ROOT / "data" / "general.jsonl", Exchange))
    lines = (ROOT / "data" / "general.jsonl").read_text(encoding="utf-8").splitlines()
    assert [dumps(row) for row in rows] == lines  # as a person's editor should leave it
    assert len({row.id for row in rows}) == len(rows) >= 20 and len({row.source for row in rows}) >= 5
    assert all(row.ended and len(row.story.split()) >= 40 for row in rows)


def test_no_general_text_is_an_error_that_names_the_file(workspace):
    (workspace.folder / "general.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="general.jsonl is empty"):
        workspace()


@pytest.mark.parametrize(
    ("prompt", "complaint"),
    [
        ("a" * 500, "^a prompt of 5.. tokens and a reply of 8 are more than the 512 tokens"),
        ("\ud83d", "prompts.yaml: cannot be read: prompts: 3: prompt: character 1 is half a character"),
    ],
)
def test_a_prompt_that_no_writer_can_read_is_refused_before_anything_is_measured(
    workspace, monkeypatch, prompt, complaint
):
    monkeypatch.setattr(stage, "losses", None)
    spelled = json.dumps({"prompts": [*PROMPTS, {"id": "x", "kind": "x", "prompt": prompt}]})
    (workspace.folder / "prompts.yaml").write_text(spelled)
    with pytest.raises(UserError, match=complaint):
        workspace()


def test_an_opening_too_short_to_copy_from_is_refused(workspace):
    with pytest.raises(UserError, match="evaluate.opening_words = 15"):
        workspace(opening_words=15)


def test_a_wanted_number_of_stories_is_chosen_by_hash_not_by_position(exchanges):
    params = stage.EvaluateParams(**{**PARAMS, "stories": 4})
    chosen = stage.chosen(exchanges, params)
    assert stage.chosen(exchanges[::-1], params) == chosen
    assert len(chosen) == 4 and chosen != exchanges[:4]
    more = stage.chosen(exchanges, params.model_copy(update={"stories": 6}))
    assert more[:4] == chosen


@pytest.mark.parametrize("held_out", [0, 1])
def test_with_little_or_nothing_held_out_samples_are_written_and_no_interval(workspace, exchanges, held_out):
    write_jsonl(workspace.folder / "processed" / "test.jsonl", exchanges[:held_out])
    metrics, details = workspace(), workspace.details()
    assert metrics["improvement"]["low"] is None and details["stories"] == held_out
    assert (metrics["tuned"]["loss"] is None) == (held_out == 0)
    assert len(list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))) == 4
    assert metrics["general"]["gain"] is not None and metrics["prompt_use"]["gain"] is None


def test_a_missing_adapter_is_one_clear_line(workspace, model_params):
    for path in (workspace.folder / "tuned").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="adapter_config.json: .*run `dvc repro`"):
        workspace()


def test_the_prompts_keep_their_seeds_when_others_come():
    prompts = [Prompt(**prompt) for prompt in PROMPTS]
    assert stage.requests(prompts[1:], 5, 2) == stage.requests(prompts, 5, 2)[2:]


def test_the_tokenizer_alone_needs_no_weights(model_params, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    assert load_encoder(model_params).prompt("Tell.")
