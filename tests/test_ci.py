"""What CI takes for the same result."""

import runpy
from pathlib import Path

import pytest

disagreements = runpy.run_path(str(Path(__file__).parents[1] / ".ci" / "agree.py"))["disagreements"]
RUN = {
    "steps": 300,
    "tuned": {"loss": 3.3, "perplexity": 27.1},
    "improvement": {"low": 0.39},
    "best_step": 280,
}


def test_last_bits_and_the_best_step_may_differ():
    now = {**RUN, "tuned": {"loss": 3.306, "perplexity": 27.26}, "best_step": 290}
    assert list(disagreements(RUN, now, "m")) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"steps": 301}, "m.steps"),
        ({"tuned": {"loss": 3.4, "perplexity": 27.1}}, "m.tuned.loss"),
        ({"tuned": {"loss": 3.3}}, "m.tuned.perplexity"),
        ({"improvement": {"low": 0.36}}, "m.improvement.low"),
        ({"improvement": {"low": None}}, "m.improvement.low"),
    ],
)
def test_count_loss_or_missing_number_that_differs_is_named(change, key):
    assert [line.split(":")[0] for line in disagreements(RUN, {**RUN, **change}, "m")] == [key]
