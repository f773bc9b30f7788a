"""Stories that give a held-out prompt away are known."""

import pytest

from storyforge.preprocess.contamination import contaminated, held_out_prompts
from storyforge.preprocess.drafts import WORD
from storyforge.preprocess.duplicates import shingles

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
