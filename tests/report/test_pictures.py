from collections import Counter

import pytest

from storyforge.report import pictures

ACCOUNT = {
    "drafts": 100,
    "rules": {"short": {"dropped": 10}, "never_first": {"dropped": 0}, "foreign": {"dropped": 20}},
    "kept": {"train": 60, "val": 4, "test": 6},
}
GAIN = {"nats_per_token": 0.3, "low": 0.2, "high": 0.4, "groups": 6}
PART = {"improvement": GAIN}
LONE = {"improvement": {"nats_per_token": 0.1, "low": None, "high": None, "groups": 1}}
HUMAN = {"p1": 0.2, "p5": 0.3, "median": 0.5, "p95": 0.8, "p99": 1.2}


def labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_the_loss_picture_shows_both_curves_and_the_base():
    figure = pictures.loss([{"step": 1, "loss": 4.0}, {"step": 2, "loss": 3.0}], [{"step": 0, "loss": 3.9}])
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    assert lines["training, mean of 20 steps"] == [4.0, 3.5]
    assert lines["validation"] == [3.9] and lines["base on validation"] == [3.9, 3.9]


def test_a_run_without_validation_has_its_training_curve():
    assert len(pictures.loss([{"step": 1, "loss": 4.0}], []).axes[0].lines) == 2


def test_the_funnel_loses_by_rule_what_the_sides_do_not_keep():
    assert list(pictures.fallen(ACCOUNT)) == [
        ("drafts", 0, 100, True),
        ("dropped: short", 90, 10, False),
        ("dropped: foreign", 70, 20, False),
        ("kept: train", 0, 60, True),
        ("kept: val", 60, 4, True),
        ("kept: test", 64, 6, True),
    ]


def test_every_source_has_a_panel_in_the_funnel_an_empty_one_too():
    empty = {"drafts": 0, "rules": {}, "kept": {"train": 0, "val": 0, "test": 0}}
    figure = pictures.funnel({"plays": ACCOUNT, "cost $5 or $6": empty})
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["plays", "cost $5 or $6"]


def test_lengths_count_every_story():
    figure = pictures.lengths({"plays": Counter({100: 5, 200: 7}), "tales": Counter({3: 1})})
    assert [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes] == [12, 1]
    assert figure.axes[0].get_title(loc="left") == "plays: median 200 words"


def test_improvement_draws_an_interval_only_where_there_is_one():
    groups = {"It costs $5 or $6": LONE}
    details = {**PART, "general": PART, "sources": {"plays": PART}, "groups": groups}
    figure = pictures.improvement(details)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert labels(axes) == ["all held-out stories", "general text", "It costs $5 or $6"]
    spans = [list(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert spans == [[0.2, 0.4], [0.2, 0.4], [0, 0]]  # and the line at zero


def test_improvement_names_sources_and_leaves_out_too_many_groups():
    many = {str(number): LONE for number in range(pictures.MOST_GROUPS + 1)}
    details = {**PART, "general": PART, "sources": {"plays": PART, "tales": LONE}, "groups": many}
    assert labels(pictures.improvement(details).axes[0]) == [
        "all held-out stories",
        "plays",
        "tales",
        "general text",
    ]


def test_writing_places_a_writer_on_the_scale_of_human_texts():
    row = {"base": 0.7, "tuned": 99.0, "corpus": HUMAN}
    (axes,) = pictures.writing({"distinct_2": row}).axes
    found = {line.get_label(): list(line.get_xdata())[0] for line in axes.lines}
    assert found["base"] == pytest.approx(0.5)
    assert found["tuned"] == 1 + pictures.BEYOND  # outside, at the edge
    assert labels(axes) == ["distinct pairs"]
