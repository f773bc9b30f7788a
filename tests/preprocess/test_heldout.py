"""A group's side depends on its name alone; stories that give a held-out prompt away are known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.choice import rank
from storyforge.preprocess.corpus import shingles
from storyforge.preprocess.drafts import WORD
from storyforge.preprocess.heldout import (
    ONE_OF,
    HeldOut,
    SplitParams,
    absent,
    contaminated,
    ends,
    held_out_prompts,
    sides,
)

PARAMS = SplitParams(
    salt=1, val=0.05, test=0.01, held_out={"plays": HeldOut(val=("Timon",), test=("Macbeth", "King John"))}
)


SIDES = ("train", "val", "test")


def named(count: int) -> list[str]:
    return [f"group {n}" for n in range(count)]


def counts(found: dict[str, str]) -> list[int]:
    return [list(found.values()).count(side) for side in SIDES]


def test_shares_are_as_wanted():
    _, val, test = counts(sides("prompts", named(20_000), PARAMS))
    assert val / 20_000 == pytest.approx(0.05, abs=0.005)
    assert test / 20_000 == pytest.approx(0.01, abs=0.003)


def test_a_list_decides_for_its_source_and_for_no_other():
    plays = ["Timon", "Macbeth", "Hamlet"]
    assert list(sides("plays", plays, PARAMS).values()) == ["val", "test", "train"]
    assert set(sides("plays", named(200), PARAMS).values()) == {"train"}
    assert set(sides("prompts", named(200), PARAMS).values()) == set(SIDES)


def test_another_salt_is_another_split():
    other = PARAMS.model_copy(update={"salt": 2})
    assert sides("p", named(500), PARAMS) != sides("p", named(500), other)


@given(st.sets(st.text(min_size=1), min_size=3, max_size=60), st.floats(0.01, 0.4), st.floats(0.01, 0.4))
def test_of_three_works_or_more_one_is_on_each_side_and_of_thirty_three(works, val, test):
    params = SplitParams(salt=1, val=val, test=test)
    assert min(counts(sides("folder", works, params))) >= (3 if len(works) >= 30 and val + test < 0.5 else 1)


@given(st.sets(st.text(min_size=1), max_size=40), st.text(min_size=1))
def test_a_new_work_moves_one_of_each_side_at_most_and_none_into_the_held_out(works, new):
    before, after = (sides("folder", each, PARAMS) for each in (works - {new}, works | {new}))
    moved = [(before[work], after[work]) for work in before if before[work] != after[work]]
    # With the twentieth and the thirtieth work each side is assured one more: test takes it from val.
    one_more = len(before) // ONE_OF < len(after) // ONE_OF
    towards_training = all(SIDES.index(old) > SIDES.index(now) for old, now in moved if old != "train")
    assert len(works) < 4 or one_more or towards_training
    assert sum(old != "train" for old, _ in moved) <= 2


def test_a_share_of_nothing_is_nothing():
    params = SplitParams(salt=1, val=0.1, test=0)
    assert counts(sides("folder", named(12), params))[2] == 0


def test_the_end_of_a_work_alone_is_held_out_behind_gaps():
    found = ends(100, PARAMS)
    assert found == ["train"] * 92 + ["gap"] + ["val"] * 5 + ["gap"] + ["test"]
    assert ends(8, PARAMS) == ["train"] * 4 + ["gap", "val", "gap", "test"]
    assert set(ends(7, PARAMS)) == {"train"}  # too few to give some away


def test_held_out_groups_that_are_not_there_are_named():
    there = np.array([rank(name, PARAMS.salt) for name in ("Timon", "Hamlet")], np.uint64)
    assert absent("plays", there, PARAMS) == ["King John", "Macbeth"]
    assert absent("prompts", there[:0], PARAMS) == []


@given(st.text(), st.text())
def test_every_name_has_a_side(source, group):
    assert set(sides(source, [group, *named(5)], PARAMS).values()) <= set(SIDES)


LONG = "Every night the keeper counts the ships, and every night one more of them has come home empty."
SHORT = "The clock strikes thirteen."
HELD_OUT = held_out_prompts([LONG, SHORT], shingle_words=5, min_jaccard=0.7)


def verdict(story: str, prompt: str | None = None) -> str | None:
    words = WORD.findall(story.casefold())
    return contaminated(words, shingles(words, 5), prompt, HELD_OUT)


@pytest.mark.parametrize(
    ("story", "prompt"),
    [
        (f"He read it aloud: {LONG.upper()} Then he wept.", None),
        ("Something else.", LONG),
        ("Something else.", "[sic] " + LONG.replace(",", " --")),
        ("Something else.", "The clock strikes thirteen"),
        (
            "Something else.",
            "Once, every night the keeper counts the ships, and every night one more arrives.",
        ),
    ],
)
def test_a_story_or_prompt_that_shares_one_is_caught(story, prompt):
    assert verdict(story, prompt)


@pytest.mark.parametrize(
    ("story", "prompt"),
    [
        ("Every night the keeper counts the ships. One has come home empty.", None),
        ("The clock strikes thirteen. He woke.", None),  # four words are anyone's
        ("Something else.", "The clock strikes twelve, and the keeper counts the ships."),
        ("", ""),
    ],
)
def test_others_are_not(story, prompt):
    assert verdict(story, prompt) is None
