"""A WritingPrompts row becomes a premise and English prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.cleaning import CONTROL_TOKEN, spaced
from storyforge.preprocess.reddit import prompt_and_tags, story, unmarked

ROW = (
    "A/N: first try , be gentle ! <newline> <newline> `` You 're late , '' it said . <newline> "
    "<newline> I do n't *like* clocks . They ca n't **ever** be _wrong_ -- can they ? <newline> -- - "
    "<newline> & nbsp; <newline> [ It ] ( http: //www.example.org/? v=1 ) was right . <newline> > `` Tick "
    "! '' <newline> <newline> Edit : a word . Thanks for reading !"
)


def test_a_row_reads_like_a_book():
    found = story(ROW)
    assert found.text == (
        "\"You're late,\" it said.\n\nI don't like clocks. They can't ever be wrong—can they?\n***\n\n"
        'It was right.\n"Tick!"'
    )
    assert not found.goes_on
    assert found.characters == len("A/N:firsttry,begentle!Edit:aword.Thanksforreading!")


@pytest.mark.parametrize(
    ("raw", "premise", "tags"),
    [
        ("[ WP ] You 're the last dragon .", "You're the last dragon.", ("WP",)),
        ("[WP/RF] A quiet day [ NSFW ]", "A quiet day", ("WP", "RF", "NSFW")),
        ("[ EU ] [ CW ] Two tags", "Two tags", ("EU", "CW")),
        ("WP : An odd door", "An odd door", ()),
        ("[ WP ] Money buys [ units of ] joy", "Money buys [units of] joy", ("WP",)),
        ("[ WP ] `` Stay . '' ( More inside )", '"Stay."', ("WP",)),
    ],
)
def test_a_prompt_loses_its_tags_and_keeps_its_words(raw, premise, tags):
    assert prompt_and_tags(raw) == (premise, tags)


@pytest.mark.parametrize(
    ("marked", "words"),
    [
        ("***bold and italic*** and ~~struck~~", "bold and italic and struck"),
        ("# A heading", "A heading"),
        ("## Another", "Another"),
        ("*It 's time... *", "It 's time..."),
        ("a snake_case_name and f*ck and f**k", "a snake_case_name and f*ck and f**k"),
        ("see http: //example.org/a there", "see there"),
        ("* a point", "a point"),
        ("one\n* * *\n\n____\ntwo", "one\n***\ntwo"),
        ("***\nstart and end\n---", "start and end"),
        (r"a \*star\*", "a *star*"),
        ("#1 of 2", "#1 of 2"),
        ("Chemical # _____ on __/__/20__", "Chemical # _____ on __/__/20__"),
    ],
)
def test_markdown_goes_and_words_stay(marked, words):
    assert spaced(unmarked(marked)) == words


def test_part_two_elsewhere_means_the_story_has_not_ended():
    assert story("It began . <newline> Part 2 in the comments !").goes_on


@given(st.text(st.sampled_from("ab .,'`*_-~^#>[]()<|>\nimend&;")) | st.text())
def test_no_row_is_too_odd_and_no_control_token_survives(text):
    assert not CONTROL_TOKEN.search(story(text).text)
    assert not CONTROL_TOKEN.search(prompt_and_tags(text)[0])
