"""The stage on a tiny model: what it writes, and when it writes that there is nothing to say."""

import json
import random

import pytest
from pipeline import story
from ruamel.yaml import YAML

from storyforge.core.errors import UserError
from storyforge.core.files import read_json, read_jsonl, write_json, write_jsonl
from storyforge.core.records import Exchange
from storyforge.judge import stage
from storyforge.judge.texts import Text
from storyforge.model.loading import adapter_weights, save_adapter

SAMPLING = {
    "seed": 5,
    "max_new_tokens": 999,
    "temperature": 0.8,
    "top_p": 0.95,
    "min_p": 0.0,
    "repetition_penalty": 1.1,
}
CALLS = {"model": "m", "effort": None, "base_url": None, "max_dollars": 1, "batch": False, "workers": 1}
PARAMS = {"seed": 9, "prompts": 3, "samples": 2, "max_new_tokens": 24, "judge": "checks", "gate_pairs": 10}
WRITERS = ["base", "tuned", "aligned", "constitution"]


def tale(number: int) -> Exchange:
    text = story(random.Random(number))
    return Exchange(f"t{number}", "made", f"g{number}", f"Tell of {text.splitlines()[0]}", text, True)


@pytest.fixture
def workspace(tmp_path, monkeypatch, model_params, tuned):
    """A folder with everything the stage reads; returns a function that runs it there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STORYFORGE_CHECKPOINT_DIR", str(tmp_path / "work"))
    write_jsonl(tmp_path / "processed" / "test.jsonl", map(tale, range(8)))
    write_jsonl(tmp_path / "processed" / "train.jsonl", map(tale, range(8, 30)))
    save_adapter(tmp_path / "tuned", tuned, adapter_weights(tuned), model_params)
    halved = {name: weight / 2 for name, weight in adapter_weights(tuned).items()}
    save_adapter(tmp_path / "aligned", tuned, halved, model_params)
    monkeypatch.setattr(stage, "as_system", lambda principles: "Be brief.")

    def run(**changes):
        sections = {"model": model_params.model_dump(mode="json"), "sampling": SAMPLING}
        YAML().dump({**sections, "judge": {**PARAMS, "calls": CALLS, **changes}}, tmp_path / "params.yaml")
        names = ("processed", "tuned", "aligned", "constitution.yaml", "out", "metrics.json")
        stage.main(*(tmp_path / name for name in names))
        return json.loads((tmp_path / "metrics.json").read_text())

    run.folder = tmp_path
    run.details = lambda: read_json(tmp_path / "out" / "details.json")
    return run
