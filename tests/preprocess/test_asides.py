"""What is said around a story goes; what is said in it stays."""

import pytest

from storyforge.preprocess.asides import without_asides

STORY = ["The rain had stopped.", "", '"Come in," she said.', "", "He never did."]


@pytest.mark.parametrize(
    "aside",
    [
        "Edit: formatting",
        "EDIT 2: thank you for the gold, kind stranger!",
        "Thanks for reading! More of my work is at /r/somewhere.",
        "( Sorry for any typos, wrote this on my phone. )",
        "[ First time posting here, so be gentle! ]",
        "A/N: I took some liberties with the prompt.",
        "Feedback is always welcome!",
        "This is my first story here, criticism would be appreciated.",
        "Hope you liked it!",
        "[ More stories ] ( https: //www.example.org/me )",
        "^If ^you ^enjoyed ^this",
        "I know it does n't match the prompt exactly.",
        "-017",
    ],
)
@pytest.mark.parametrize("end", ["head", "tail"])
def test_an_aside_goes_from_either_end(aside, end):
    lines = [aside, "", *STORY] if end == "head" else [*STORY, "", aside]
    assert without_asides(lines)[0] == STORY


def test_rules_and_empty_lines_around_it_go_too():
    assert (
        without_asides(["***", "", *STORY, "", "-- -", "", "____", "Thank you for reading!", ""])[0] == STORY
    )


def test_after_an_edit_everything_is_the_authors():
    assert without_asides([*STORY, "EDIT: wow.", "My grandmother loved it.", "She has a cat."])[0] == STORY


def test_beyond_a_rule_a_hint_is_enough():
    words = "A story about a movie I saw once."
    assert without_asides([*STORY, "***", words])[0] == STORY
    assert without_asides([*STORY, words])[0] == [*STORY, words]


@pytest.mark.parametrize(
    "line",
    [
        '"Thank you for reading to me," said the child.',
        "She edited the letter twice. Nobody had edited her before.",
        "He hoped you would not notice the note on the door.",
        "The end.",
        "He wrote it all over the dust with one finger: sorry.",
        "Edith smiled.",
        "Dear Anna, thank you for everything.",
        "Part of the wall fell.",
    ],
)
def test_a_line_of_the_story_stays(line):
    assert without_asides([line, "", *STORY])[0] == [line, "", *STORY]
    assert without_asides([*STORY, "", line])[0] == [*STORY, "", line]


def test_the_middle_is_never_touched():
    lines = ["The blog began with these words.", "Edit: thanks for reading! /r/somewhere", *STORY * 4]
    assert without_asides(lines)[0] == lines


def test_a_long_paragraph_is_the_story_unless_it_is_set_apart():
    long = "Hope you will like it" + " and walk on through the rain" * 15
    assert without_asides([*STORY, long])[0] == [*STORY, long]
    assert without_asides([*STORY, f"*{long}*"])[0] == STORY


@pytest.mark.parametrize(
    "hint", ["To be continued...", "[ cont in reply ]", "Part 2 below", "Edit: part two is in the comments!"]
)
def test_a_story_that_goes_on_elsewhere_is_known(hint):
    assert without_asides([*STORY, hint]) == (STORY, True)
    assert without_asides(STORY) == (STORY, False)


def test_nothing_but_asides_leaves_nothing():
    assert without_asides(["Edit: oops", "***", "Thanks for reading!"]) == ([], False)
