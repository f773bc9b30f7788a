"""`dvc repro` runs what it must, and nothing else."""

import pytest
from pipeline import STAGES

AFTER = {stage: STAGES[i:] for i, stage in enumerate(STAGES)}


@pytest.fixture(scope="module")
def here(built, tmp_path_factory):
    """One clone for the tests of this file; each leaves it as it was committed."""
    return built.clone(tmp_path_factory.mktemp("here") / "storyforge", cache=True)


def test_repro_gives_every_declared_output_and_a_clean_tree(here):
    assert here.dvc("status") == "Data and pipelines are up to date.\n"
    assert here.git("status", "--short") == ""
    assert "adapter_model.safetensors" in here.digest("models/tuned")
    assert here.metrics().keys() == {f"{stage}.json" for stage in STAGES[1:-1]}
    reports = here.digest("reports")
    assert {"report.md", "report.html", "judging.md", "MODEL_CARD.md", "loss.png"} < reports.keys()
    assert b"has no second phase" in reports["judging.md"] and b"has no second phase" in reports["report.md"]


def test_second_repro_runs_nothing(here):
    assert here.repro() == []


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("collect.max_reject_share", 0.03, ["collect", "report"]),
        ("align.seed", 14, ["align", "report"]),
        pytest.param("train.learning_rate", 5e-3, AFTER["train"], marks=pytest.mark.slow),
        pytest.param("sampling.temperature", 0.9, AFTER["evaluate"], marks=pytest.mark.slow),
        pytest.param("evaluate.seed", 7, ["evaluate", "report"], marks=pytest.mark.slow),
        pytest.param("model.system", "Tell a story.", AFTER["train"], marks=pytest.mark.slow),
        pytest.param("preprocess.split.salt", 1604, AFTER["preprocess"], marks=pytest.mark.slow),
    ],
)
def test_changed_choice_runs_what_it_touches_and_the_run_cache_takes_it_back(here, key, value, expected):
    params = here.root / "params.yaml"
    before = params.read_bytes()
    here.choose({key: value})
    try:
        assert here.repro() == expected
    finally:
        params.write_bytes(before)
    assert set(here.repro()) <= {"report"}  # its outputs are in git, not in the run cache
    assert here.git("status", "--short") == ""
