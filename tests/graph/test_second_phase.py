"""Drafts, pairs, training on them and judging, as stages of the whole graph on the tiny model."""

import json

import pytest
from pipeline import SECOND_PHASE, STAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def here(built, tmp_path_factory):
    repository = built.clone(tmp_path_factory.mktemp("second") / "storyforge", cache=True)
    repository.choose(SECOND_PHASE)
    assert repository.repro("evaluate") == []  # the first phase has no part in it
    assert repository.repro() == STAGES[STAGES.index("revise") :]
    return repository


def test_pairs_become_an_adapter_that_is_compared_and_reported(here):
    pairs, aligned = here.digest("data/revised")["pairs.jsonl"], here.digest("models/aligned")
    assert pairs and "adapter_model.safetensors" in aligned
    assert aligned["adapter_model.safetensors"] != here.digest("models/tuned")["adapter_model.safetensors"]
    details, training = (
        json.loads((here.root / name).read_bytes())
        for name in ("data/judged/details.json", "models/aligned/training.json")
    )
    assert training["steps"] > 0 and "off" not in details
    for name in ("report.md", "judging.md", "MODEL_CARD.md"):
        text = (here.root / "reports" / name).read_text()
        assert "is the tuned adapter, trained further" in text, name
    assert "aligned" in here.run("storyforge", "compare", "A duel.", "--length", "4")
    assert "chosen" in here.run("storyforge", "look", "revised")


def test_a_second_run_has_nothing_to_do(here):
    assert here.repro() == []


def test_another_principle_runs_the_second_phase_alone(here):
    file = here.root / "data" / "constitution.yaml"
    before = file.read_text()
    file.write_text(before.replace("weight: 2", "weight: 3"))
    try:
        assert set(here.repro()) <= {"revise", "align", "judge", "report"}
        assert "evaluate" not in here.dvc("status")
    finally:
        file.write_text(before)
