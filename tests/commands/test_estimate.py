"""A rehearsal of the tiny model's job."""

import json

import pytest
from ruamel.yaml import YAML

from storyforge.commands.estimate import duration, job_of, rehearsed
from storyforge.core.errors import UserError
from storyforge.train.params import TrainParams


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
    for name in ("time", "peak memory", "trainable", "batch", "tokens", "disk", "cost"):
        assert name in names
    assert "\x1b" not in done.stdout and "at 2.00 an hour" in done.stdout


def test_steps_without_stories_name_the_command_that_makes_them(job, storyforge):
    (job / "data/processed/train.jsonl").unlink()
    done = storyforge("estimate", "--steps", "2", status=1)
    complaint = "data/processed/train.jsonl: no stories there yet: run `dvc repro preprocess`"
    assert done.stderr == f"error: {complaint}\n"


def test_without_stories_it_plans_params_yaml(job, storyforge):
    (job / "data/processed/train.jsonl").unlink()
    assert storyforge("estimate").stdout.startswith("recipe   params.yaml: ")


def test_steps_of_another_recipe_are_refused(clone, storyforge):
    said = storyforge("estimate", "--steps", "2", "--recipe", "params.yaml", status=1).stderr
    assert said == "error: --steps runs steps of params.yaml on this machine: leave --recipe and --base out\n"


def test_no_training_stories_is_an_error_that_says_where_to_look(job):
    (job / "data/processed/train.jsonl").write_text("")
    with pytest.raises(UserError, match="train.jsonl is empty: metadata.json"):
        rehearsed(2)


def test_validations_are_counted_as_training_makes_them(encoded, loop_params, lora):
    """Seven steps, every second: before the first, after 2, 4, 6 and the last; none without stories."""
    params = TrainParams(**loop_params.model_dump() | {"epochs": 7, "batch_stories": 9}, lora=lora)
    assert job_of(encoded, encoded[:2], params)["validations"] == 5
    assert job_of(encoded, encoded[:2], params.model_copy(update={"max_steps": 6}))["validations"] == 4
    assert job_of(encoded, [], params)["validations"] == 0


@pytest.mark.parametrize(
    ("seconds", "said"), [(8, "8 s"), (119, "119 s"), (121, "2 min"), (7199, "120 min"), (148_500, "41.2 h")]
)
def test_a_time_is_said_in_the_unit_that_suits_it(seconds, said):
    assert duration(seconds) == said
