import json

import pytest
from ruamel.yaml import YAML

from storyforge.launch import UserError
from storyforge.model.loading import adapter_weights, load_adapter, load_base, load_encoder, save_adapter
from storyforge.records import Prompt, read_jsonl, write_jsonl
from storyforge.stages import evaluate
from storyforge.text.measures import Scored

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
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    YAML().dump({"prompts": PROMPTS}, tmp_path / "prompts.yaml")

    def run(**changes):
        params = {"seed": 1, "stories": None, "max_tokens": 200, "batch_tokens": 500, **changes}
        sections = {"model": model_params.model_dump(mode="json"), "evaluate": params, "sampling": SAMPLING}
        YAML().dump(sections, tmp_path / "params.yaml")
        evaluate.main(
            *(tmp_path / name for name in ("processed", "tuned", "prompts.yaml", "out", "metrics.json"))
        )
        return json.loads((tmp_path / "metrics.json").read_text())

    run.folder = tmp_path
    return run


def test_metrics_hold_base_tuned_and_the_interval_overall_and_by_source(workspace):
    metrics = workspace()
    assert list(metrics) == ["base", "tuned", "improvement", "stories", "reply_tokens", "sources"]
    assert list(metrics["base"]) == list(metrics["tuned"]) == ["loss", "perplexity", "bits_per_byte"]
    assert (
        metrics["improvement"]["low"]
        <= metrics["improvement"]["nats_per_token"]
        <= metrics["improvement"]["high"]
    )
    assert list(metrics["sources"]) == ["made"]
    assert metrics["sources"]["made"]["base"] == metrics["base"]
    assert metrics["improvement"]["groups"] == 3 and metrics["stories"] == 9


def test_the_two_writers_are_the_base_and_the_adapter(workspace, model_params, encoded):
    workspace()
    scored = {row.id: row for row in read_jsonl(workspace.folder / "out" / "stories.jsonl", Scored)}
    base = load_base(model_params)
    base_nll = evaluate.losses(base, encoded, 1000, "base")
    tuned_nll = evaluate.losses(
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
    assert sorted(first) == ["details.json", "samples.jsonl", "stories.jsonl"]
    assert content() == first


def test_both_writers_answer_every_prompt_with_one_seed(workspace):
    workspace()
    pairs = list(read_jsonl(workspace.folder / "out" / "samples.jsonl", dict))
    assert [pair["id"] for pair in pairs] == ["rain", "sea"]
    assert all(pair["base"]["tokens"] == 8 or pair["base"]["ended"] for pair in pairs)
    assert any(pair["base"]["text"] != pair["tuned"]["text"] for pair in pairs)
    assert pairs[0]["seed"] != pairs[1]["seed"]


def test_a_wanted_number_of_stories_is_chosen_by_hash_not_by_position(exchanges):
    params = evaluate.EvaluateParams(seed=1, stories=4, max_tokens=200, batch_tokens=500)
    chosen = evaluate.chosen(exchanges, params)
    assert evaluate.chosen(exchanges[::-1], params) == chosen
    assert len(chosen) == 4 and chosen != exchanges[:4]
    more = evaluate.chosen(exchanges, params.model_copy(update={"stories": 6}))
    assert more[:4] == chosen


def test_an_empty_test_set_is_an_error_that_names_the_remedy(workspace):
    write_jsonl(workspace.folder / "processed" / "test.jsonl", [])
    with pytest.raises(UserError, match="test.jsonl is empty: raise preprocess.split.test"):
        workspace()


def test_a_missing_adapter_is_one_clear_line(workspace, model_params):
    for path in (workspace.folder / "tuned").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="adapter_config.json: .*run `dvc repro` or `dvc pull`"):
        workspace()


def test_the_prompts_keep_their_seed_when_others_come(encoder):
    sampling = evaluate.SamplingParams(**SAMPLING)
    prompts = [Prompt(**prompt) for prompt in PROMPTS]
    assert evaluate._seeds(prompts[1:], sampling) == evaluate._seeds(prompts, sampling)[1:]


def test_the_tokenizer_alone_needs_no_weights(model_params, monkeypatch):
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
    assert load_encoder(model_params).prompt("Tell.")
