"""An estimate of the tiny model's job, and the arithmetic of the table by hand."""

import json

import pytest
from ruamel.yaml import YAML

from storyforge.commands import estimate, hardware
from storyforge.commands.estimate import job_of
from storyforge.commands.hardware import LLAMA_3_1_8B, forecasts
from storyforge.commands.terminal import duration
from storyforge.core.errors import UserError
from storyforge.train.schedule import TrainParams


@pytest.fixture
def job(clone):
    """Of the clone: six stories in steps of two, two epochs, two stories to validate on."""
    params = YAML(typ="safe").load(clone / "params.yaml")
    params["train"] |= {"epochs": 2, "max_steps": None, "batch_stories": 2, "validate_every": 4}
    params["train"] |= {"checkpoint_every": 2, "micro_batch_tokens": 300, "patience": None}
    params["train"]["lora"] = {"r": 4, "alpha": 8, "dropout": 0.0, "targets": "all-linear"}
    YAML(typ="safe").dump(params, clone / "params.yaml")
    return clone


@pytest.fixture
def found(job, storyforge):
    return json.loads(storyforge("estimate", "--json", "--steps", "3", "--price-per-hour", "3600").stdout)


def test_it_counts_what_training_would(found, encoder, exchanges):
    lengths = [len(encoder.exchange(each, 200).ids) for each in exchanges]
    assert (
        found["job"]
        == {
            "epochs": 2,
            "steps": 6,
            "stories_a_step": 2,
            "tokens_a_step": 2 * sum(lengths[:6]) / 6,
            "tokens_an_epoch": sum(lengths[:6]),
            "tokens": 2 * sum(lengths[:6]),
            "validations": 3,  # before the first step, after the fourth, after the last
            "validation_tokens": 3 * sum(lengths[6:8]),
        }
    )


def test_its_time_is_made_of_what_was_measured(found):
    costs, seconds, job = found["costs"], found["seconds"], found["job"]
    assert seconds["training"] == pytest.approx(job["tokens"] * costs["token_s"])
    assert seconds["validation"] == pytest.approx(job["validation_tokens"] * costs["validation_token_s"])
    assert seconds["checkpoints"] == pytest.approx(3 * costs["checkpoint_s"])
    parts = (seconds[part] for part in ("startup", "training", "validation", "checkpoints"))
    assert seconds["total"] == pytest.approx(sum(parts))
    assert found["price"] == pytest.approx(seconds["total"])  # a second costs one
    assert min(costs["token_s"], costs["validation_token_s"], costs["checkpoint_s"]) > 0


def test_it_tells_memory_parameters_and_disk_of_the_real_adapter(found, tuned, tiny_model_dir):
    costs, trainable = found["costs"], [w for w in tuned.parameters() if w.requires_grad]
    assert costs["trainable_parameters"] == sum(weight.numel() for weight in trainable)
    assert 0 < found["disk"]["adapter"] - 4 * costs["trainable_parameters"] < 10_000
    assert found["disk"]["checkpoints"] == 3 * costs["checkpoint_bytes"] > 12 * costs["trainable_parameters"]
    assert found["disk"]["base"] == sum(file.stat().st_size for file in tiny_model_dir.iterdir())
    assert 100 << 20 < costs["peak_memory_bytes"] < 8 << 30
    assert costs["micro_batch_tokens"] == 300


def test_nothing_of_the_steps_is_kept(job, storyforge, model_params):
    before = sorted(job.rglob("*"))
    storyforge("estimate", "--steps", "2")
    assert sorted(job.rglob("*")) == before


def test_people_read_it_in_plain_lines(job, storyforge):
    done = storyforge("estimate", "--steps", "2", "--price-per-hour", "2")
    names = [line.split("  ")[0] for line in done.stdout.splitlines()]
    for name in (
        "time",
        "peak memory",
        "trainable",
        "batch",
        "tokens",
        "disk",
        "cost",
        "T4",
        "H100",
        "this one",
    ):
        assert name in names
    assert "\x1b" not in done.stdout and "at 2.00 an hour" in done.stdout
    assert "T4: derived: scaled from 758 tokens/s" in done.stderr


def test_without_stories_it_names_the_command_that_makes_them(job, storyforge):
    (job / "data/processed/train.jsonl").unlink()
    done = storyforge("estimate", status=1)
    complaint = "data/processed/train.jsonl: no stories there yet: run `dvc repro preprocess` or `dvc pull`"
    assert done.stderr == f"error: {complaint}\n"


def test_no_training_stories_is_an_error_that_says_where_to_look(job):
    (job / "data/processed/train.jsonl").write_text("")
    with pytest.raises(UserError, match="train.jsonl is empty: metadata.json"):
        estimate.estimate(2)


def by_machine(parameters, tokens, quantized):
    return {row.machine: row for row in forecasts(parameters, tokens, quantized)}


def test_fifty_thousand_stories_take_a_t4_forty_hours_not_five():
    """50,000 stories × 500 tokens × 3 epochs = 75 M tokens; 0.35 · 65e12 / (6 · 7.5e9) = 505 a second: 41 h.

    A 4090 at torchtune's 2,413 with QLoRA: 8.6 h. An H100 at 0.45 · 989e12 / (4 · 7.5e9) = 14,800: 1.4 h.
    """
    found = by_machine(LLAMA_3_1_8B, 75_000_000, quantized=False)
    hours = {name: row.hours for name, row in found.items()}
    assert hours["T4"] == pytest.approx(41.3, abs=0.2) and found["T4"].method == "QLoRA"
    assert hours["RTX 4090"] == pytest.approx(8.6, abs=0.1) and found["RTX 4090"].rate.known == "published"
    assert hours["H100"] == pytest.approx(1.4, abs=0.1) and found["H100"].rate.known == "derived"
    assert 1.4 < hours["A100"] < 8.6 and hours["Mac M4"] > 400


def test_every_derived_rate_is_what_its_source_says():
    """Peak FLOP/s × share / (FLOP a weight × 7.5e9), or another model's rate by its weights."""
    rate = {(m.name, how): rate.tokens_per_second for m in hardware.MACHINES for how, rate in m.rates.items()}
    assert rate["T4", "LoRA"] == pytest.approx(0.35 * 65e12 / (4 * LLAMA_3_1_8B), rel=0.01)
    assert rate["T4", "QLoRA"] == pytest.approx(0.35 * 65e12 / (6 * LLAMA_3_1_8B), rel=0.01)
    assert rate["A100", "LoRA"] == pytest.approx(8210 * 3.2126 / 7.5047, rel=0.01)
    assert rate["A100", "QLoRA"] == pytest.approx(8035 * 3.2126 / 7.5047, rel=0.01)
    assert rate["H100", "LoRA"] == pytest.approx(0.45 * 989e12 / (4 * LLAMA_3_1_8B), rel=0.01)
    assert rate["H100", "QLoRA"] == pytest.approx(rate["H100", "LoRA"] * 2413 / 3083, rel=0.01)
    assert rate["Mac M4", "LoRA"] == pytest.approx(0.6 * 2.78e12 / (6 * LLAMA_3_1_8B), rel=0.01)


def test_a_rate_scaled_to_another_model_is_derived_and_says_from_what():
    row = by_machine(LLAMA_3_1_8B // 2, 1e6, quantized=True)["RTX 4090"]
    assert row.rate.known == "derived" and row.rate.tokens_per_second == pytest.approx(2 * 2413)
    assert row.rate.source.startswith("scaled from 2,413 tokens/s of an 8B model (published: torchtune")


def test_a_model_too_large_for_a_machine_has_no_rate_there():
    """70 billion weights: 140 GB in 16 bits, 38 GB in 4."""
    found = by_machine(70_000_000_000, 1e6, quantized=False)
    assert [name for name, row in found.items() if row.rate] == ["A100", "H100"]
    assert found["A100"].method == "QLoRA" and found["T4"].hours is None


@pytest.mark.parametrize(("parameters", "at_best"), [(134_479_872, True), (LLAMA_3_1_8B, False)])
def test_a_small_models_rates_are_bounds(parameters, at_best):
    assert {row.at_best for row in forecasts(parameters, 1e6, False)} == {at_best}


def test_validations_are_counted_as_training_makes_them(encoded, loop_params, lora):
    """Seven steps, every second: before the first, after 2, 4, 6 and the last; none without stories."""
    params = TrainParams(**loop_params.model_dump() | {"epochs": 7, "batch_stories": 9}, lora=lora)
    assert job_of(encoded, encoded[:2], params).validations == 5
    assert job_of(encoded, encoded[:2], params.model_copy(update={"max_steps": 6})).validations == 4
    assert job_of(encoded, [], params).validations == 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(8, "8 s"), (119, "119 s"), (121, "2 min"), (7199, "120 min"), (148_500, "41.2 h")]
)
def test_a_time_is_said_in_the_unit_that_suits_it(seconds, said):
    assert duration(seconds) == said
