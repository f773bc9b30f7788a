"""A WritingPrompts row becomes a premise and English prose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.cleaning import CONTROL_TOKEN, spaced
from storyforge.preprocess.reddit import prompt_and_tags, story, unmarked, without_asides

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
        ("( WP ) A slow train", "A slow train", ("WP",)),
        ("{WP} A slow train { nsfw }", "A slow train", ("WP", "NSFW")),
        ("A slow train ( NSFW )", "A slow train", ("NSFW",)),
        ("[ WP ] A slow train [ X-Post from r/somewhere ]", "A slow train", ("WP",)),
        ("[ WP ] A slow train x-post from /r/somewhere", "A slow train", ("WP",)),
        ("WP - A slow train", "A slow train", ()),
        ("( you ) are late ( op )", "(you) are late (op)", ()),
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
        ("one *======* two", "one\n***\ntwo"),
        ("one\n-\ntwo", "one\n***\ntwo"),
        ("T*he sea. I*t rose. F*ck, sh*t and h*ll", "The sea. It rose. F*ck, sh*t and h*ll"),
        ("2 == 2, a===b, Nooo~~~~", "2 == 2, a===b, Nooo~~~~"),
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
        "+1",
        "> >",
        "I will post more tonight if anyone wants it.",
        "I'll probably upload the rest tomorrow.",
        "Can you guess the twist?",
        "I could definitely write way more, but there's no time.",
        "Best I got:",
        "Trigger warning for drowning.",
        "TW: drowning",
        "Based on a true story.",
        "This was loosely based upon real events.",
        "ETA: wow, I did not expect that.",
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
        "ETA: 5 minutes.",
        "ETA: unknown.",
        "She would post the letter herself.",
        "The posters were based on an old rumour.",
        "He had guessed the twist of the road.",
        "A warning came too late.",
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


@pytest.mark.parametrize(
    "end", ['"Run!" To be continued...', "She ran - TO BE CONTINUED -", "She ran. (To be continued)"]
)
def test_a_promise_at_the_end_of_the_last_line_is_taken_off(end):
    lines, goes_on = without_asides([*STORY, end])
    assert goes_on and "ontinued" not in lines[-1].casefold() and lines[-1][:3] == end[:3]


def test_what_is_to_be_continued_in_the_story_stays():
    lines = [*STORY, "The meeting, he said, was to be continued."]
    assert without_asides(lines) == (lines, False)


def test_nothing_but_asides_leaves_nothing():
    assert without_asides(["Edit: oops", "***", "Thanks for reading!"]) == ([], False)
