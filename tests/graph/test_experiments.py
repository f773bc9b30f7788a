"""Varying a choice with `dvc exp`, and comparing what comes of it."""

import csv
import io
import json
import time

import pytest
from pipeline import STAGES, ran


@pytest.fixture
def here(built, tmp_path):
    return built.clone(tmp_path / "here", cache=True)


def shown(repository) -> dict[str, dict[str, str]]:
    """Experiment → its row of `dvc exp show`."""
    table = csv.DictReader(io.StringIO(repository.dvc("exp", "show", "--csv")))
    return {row["Experiment"] or row["rev"]: row for row in table}


@pytest.mark.slow
def test_experiment_becomes_a_branch_that_a_fresh_clone_can_compare(here, tmp_path):
    output = here.dvc("exp", "run", "--name", "wide", "--set-param", "train.lora.r=8")
    assert ran(output) == STAGES[STAGES.index("train") :]
    assert shown(here)["wide"]["train.lora.r"] == "8"
    here.dvc("exp", "branch", "wide", "wider")

    fresh = here.clone(tmp_path / "fresh")
    fresh.git("fetch", "--quiet", "origin", "wider:wider")
    metrics = json.loads(fresh.dvc("metrics", "diff", "--json", "main", "wider"))
    changed = metrics["metrics/train.json"]
    assert changed.keys() == {"validation.best_loss"} and changed["validation.best_loss"]["diff"] != 0
    choices = json.loads(fresh.dvc("params", "diff", "--json", "main", "wider"))
    assert choices == {"params.yaml": {"train.lora.r": {"old": 4, "new": 8, "diff": 4}}}


@pytest.mark.slow
def test_queued_sweep_runs_every_choice(here):
    here.dvc(
        "exp", "run", "--queue", "--name", "rate", "--set-param", "train.learning_rate=choice(1e-4,3e-4)"
    )
    try:
        here.dvc("queue", "start", "--jobs", "1")
        states = wait_for_queue(here)
    finally:
        here.dvc("queue", "stop", "--kill")
    assert states == ["Success", "Success"], here.dvc("queue", "logs", "rate-1")
    rows = shown(here)
    assert [rows[name]["train.learning_rate"] for name in ("rate-1", "rate-2")] == ["0.0001", "0.0003"]


def wait_for_queue(repository, timeout_s: float = 800) -> list[str]:
    """How each queued run ended."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        time.sleep(3)
        states = [
            word for word in repository.dvc("queue", "status").split() if word in ENDS | {"Queued", "Running"}
        ]
        if set(states) <= ENDS:
            return states
    raise AssertionError(repository.dvc("queue", "status"))


ENDS = {"Success", "Failed"}
