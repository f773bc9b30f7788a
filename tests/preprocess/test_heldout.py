"""A group's side depends on its name alone; stories that give a held-out prompt away are known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.corpus import shingles
from storyforge.preprocess.drafts import WORD
from storyforge.preprocess.heldout import HeldOut, SplitParams, absent, contaminated, held_out_prompts, side

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


@given(st.text(), st.text())
def test_every_name_has_a_side(source, group):
    assert side(source, group, PARAMS) in ("train", "val", "test")


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
