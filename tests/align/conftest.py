"""Pairs to be aligned on, and a folder where the stage runs from a tuned writer that says something."""

import pytest
from tiny import LOOP

from storyforge.core.files import write_json, write_jsonl
from storyforge.core.records import Exchange, Pair

ALIGN = {
    **LOOP,
    "objective": {"kind": "dpo", "beta": 0.1, "nll": 0.0},
    "micro_batch_tokens": 400,
    "learning_rate": 0.002,
    "schedule": "linear",
    "checkpoint_every": 1,
    "guards": {"max_loss_rise": 9, "max_chosen_fall": 9, "max_end_rise": 9, "min_distinct_2": 0.0},
}


def pair(number, side="train"):
    """The better of the two sings."""
    better, worse = (f"Bird {number} {verb} in the rain." for verb in ("sang", "slept and slept"))
    prompt, meta = f"Tell of {number} birds.", {"side": side}
    return Pair(f"pair-{number}", "made", f"g{number}", prompt, better, worse, True, False, meta)


@pytest.fixture
def pairs():
    """Seven to train on, three held out."""
    return [pair(number, "train" if number < 7 else "held_out") for number in range(10)]


@pytest.fixture
def revisions():
    return [
        Exchange(f"r{n}", "made", "g", f"Tell of {n} cats.", f"Cat {n} purred.", True, {"side": side})
        for n, side in enumerate(["train"] * 4 + ["held_out"] * 2)
    ]


@pytest.fixture
def align_params():
    from storyforge.align.params import AlignParams

    return AlignParams.model_validate(ALIGN)


@pytest.fixture
def workspace(tmp_path, monkeypatch, exchanges, pairs, revisions, tuned, model_params):
    """params.yaml, stories, pairs and a tuned adapter; returns a function that runs the stage there."""
    from ruamel.yaml import YAML

    from storyforge.align import stage
    from storyforge.model.loading import adapter_weights, save_adapter

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.setattr("storyforge.align.guards.DRAFT_TOKENS", 8)  # 64 take two fifths of a run
    write_jsonl(tmp_path / "processed" / "train.jsonl", exchanges[2:])
    # No draft is less varied than one word, whatever a processor's rounding makes of them.
    word = Exchange("word", "made", "g", "Tell of rain.", "Rain.", True)
    write_jsonl(tmp_path / "processed" / "val.jsonl", [*exchanges[:3], word])
    write_jsonl(tmp_path / "revised" / "pairs.jsonl", pairs)
    write_jsonl(tmp_path / "revised" / "sft.jsonl", revisions)
    write_json(tmp_path / "revised" / "report.json", {"pairs": len(pairs)})
    save_adapter(tmp_path / "models" / "tuned", tuned, adapter_weights(tuned), model_params)
    sampling = {"seed": 1, "max_new_tokens": 8, "temperature": 0.8, "top_p": 0.95, "min_p": 0.0}

    def run(precision="fp32", **changes):
        params = {
            "model": model_params.model_dump(mode="json") | {"origin": str(model_params.origin)},
            "align": {**ALIGN, **changes},
            "sampling": sampling | {"repetition_penalty": 1.1},
            "tracking": {"wandb": False},
        }
        params["model"]["precision"] = precision
        YAML().dump(params, tmp_path / "params.yaml")
        inputs = [tmp_path / name for name in ("processed", "revised", "models/tuned")]
        return stage.main(
            *inputs, *(tmp_path / name for name in ("models/aligned", "align.json", "align.tsv"))
        )

    run.folder = tmp_path
    return run
