"""A group's side depends on its name alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.split import HeldOut, SplitParams, absent, most_held_out, side

PARAMS = SplitParams(
    salt=1, val=0.05, test=0.01, held_out={"plays": HeldOut(val=("Timon",), test=("Macbeth", "King John"))}
)


def test_shares_are_as_wanted():
    sides = [side("prompts", f"group {n}", PARAMS) for n in range(20_000)]
    assert sides.count("val") / len(sides) == pytest.approx(0.05, abs=0.005)
    assert sides.count("test") / len(sides) == pytest.approx(0.01, abs=0.003)


def test_a_list_decides_for_its_source_and_for_no_other():
    assert [side("plays", name, PARAMS) for name in ("Timon", "Macbeth", "Hamlet")] == [
        "val",
        "test",
        "train",
    ]
    groups = [f"group {n}" for n in range(200)]
    assert {side("plays", group, PARAMS) for group in groups} == {"train"}
    assert {side("prompts", group, PARAMS) for group in groups} > {"train"}


def test_another_salt_is_another_split():
    groups = [f"group {n}" for n in range(500)]
    other = PARAMS.model_copy(update={"salt": 2})
    assert [side("p", g, PARAMS) for g in groups] != [side("p", g, other) for g in groups]


def test_held_out_groups_that_are_not_there_are_named():
    assert absent("plays", ["Timon", "Hamlet"], PARAMS) == ["King John", "Macbeth"]
    assert absent("prompts", [], PARAMS) == []


def test_test_is_held_out_more_than_val():
    assert most_held_out({"train", "val", "test"}) == "test"
    assert most_held_out({"train", "val"}) == "val"


@given(st.text(), st.text())
def test_every_name_has_a_side(source, group):
    assert side(source, group, PARAMS) in ("train", "val", "test")
