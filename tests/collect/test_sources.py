"""Each source's raw form becomes stories with the right group, prompt and meta, or a reason."""

import pytest

from storyforge.collect.reading import Unusable
from storyforge.collect.sources import (
    GENRES,
    folder_row,
    folder_text,
    prompt_group,
    shakespeare,
    story_id,
    tinystories,
    writingprompts,
)

# Two spaces at a line's end are how the plays break lines.
PLAY = """# The Lost Key

## PROLOGUE

### SCENE I. Before an inn.

_Enter a Host_

**Host**  
Come in.

## ACT I

_Enter CHORUS_

### PROLOGUE

**Chorus**  
Attend.

## SCENE I. Verona. A street.

**ANNA**  
Who has the key?

**BRUNO & CARLO:**  
Not I.

**ANNA**  
Nor I.

**Scene II**  
A garden. Night.

**BRUNO & CARLO & & C**  
The scene is changed: ACT well, and prologue little.

#### ACT II

SCENE I:

_Enter BRUNO_

**BRUNO**  
On shipboard now.

# INTERMISSION    

#### SCENE IV. The same.

**Prologue**  
He speaks the prologue.

EPILOGUE  
SPOKEN BY ANNA  
Farewell.
"""


@pytest.fixture
def play():
    return shakespeare("plays/comedies/the-lost-key.md", PLAY)


def test_acts_scenes_and_places_are_those_of_the_headings_whatever_their_form(play):
    assert [(story.meta["act"], story.meta["scene"], story.meta["place"]) for story in play] == [
        ("Prologue", "I", "Before an inn."),
        ("I", "Prologue", None),
        ("I", "I", "Verona. A street."),
        ("I", "II", "A garden. Night."),
        ("II", "I", None),
        ("II", "IV", "The same."),
        (None, "Epilogue", None),
    ]


def test_speakers_are_listed_once_in_order_of_appearance(play):
    assert [story.meta["speakers"] for story in play] == [
        ["Host"],
        ["Chorus"],
        ["ANNA", "BRUNO", "CARLO"],
        ["BRUNO", "CARLO"],
        ["BRUNO"],
        ["Prologue"],
        [],
    ]


def test_scene_is_the_text_as_the_source_gives_it(play):
    assert (
        play[2].text == "**ANNA**  \nWho has the key?\n\n**BRUNO & CARLO:**  \nNot I.\n\n**ANNA**  \nNor I."
    )
    assert play[6].text == "SPOKEN BY ANNA  \nFarewell."


def test_no_word_of_a_play_is_lost_but_its_headings(play):
    headings = """
        # The Lost Key ## PROLOGUE ### SCENE I. Before an inn. ## ACT I ### PROLOGUE ## SCENE I. Verona.
        A street. **Scene II** A garden. Night. #### ACT II SCENE I: # INTERMISSION #### SCENE IV. The same.
        EPILOGUE
    """
    words = PLAY.split()
    for heading in headings.split():
        words.remove(heading)
    assert sorted(words) == sorted(word for story in play for word in story.text.split())


def test_direction_before_a_scene_belongs_to_it(play):
    assert play[1].text == "_Enter CHORUS_\n\n**Chorus**  \nAttend."


def test_a_play_is_one_group_and_its_folder_tells_the_genre(play):
    assert {(story.source, story.group, story.prompt) for story in play} == {
        ("shakespeare", "The Lost Key", None)
    }
    assert {(story.meta["play"], story.meta["genre"]) for story in play} == {("The Lost Key", "comedy")}
    assert GENRES["roman"] == "roman play"


def test_play_without_a_title_line_is_called_after_its_file():
    (story,) = shakespeare("plays/problems/tit-for-tat.md", "## ACT I\n\n### SCENE I\n\nWords.")
    assert story.group == "Tit for Tat"


def test_text_without_scenes_is_no_play():
    with pytest.raises(Unusable, match="^no_scenes$"):
        shakespeare("plays/comedies/a.md", "# A\n\nWords.")


@pytest.mark.parametrize(
    "prompt",
    [
        "[ WP ] You find a key . It opens nothing .",
        "[WP] you find a key; it opens nothing!",
        "You  find a key -- [ EU ] it opens nothing",
    ],
)
def test_prompts_that_say_the_same_are_one_group(prompt):
    assert writingprompts(prompt, "A story.").group == "youfindakeyitopensnothing"


def test_words_in_brackets_are_no_tag():
    assert prompt_group("Money buys [ units of ] joy") == "moneybuysunitsofjoy"


def test_writing_prompt_keeps_prompt_and_story_raw_and_its_tags_beside():
    story = writingprompts("[ WP/ip ] [ nsfw ] Begin .", "He did n't . <newline> `` No ''")
    assert (story.prompt, story.text) == ("[ WP/ip ] [ nsfw ] Begin .", "He did n't . <newline> `` No ''")
    assert (story.group, story.meta) == ("begin", {"tags": ["WP", "IP", "NSFW"]})


def test_prompt_of_tags_alone_is_a_group_of_its_own():
    one, two = writingprompts("[ WP ]", "One."), writingprompts("[ WP ]", "Two.")
    assert one.group == one.id != two.group


def test_tiny_story_is_its_own_group():
    story = tinystories("Once.")
    assert (story.group, story.prompt, story.meta) == (story.id, None, {})


def test_id_depends_on_source_and_text_alone():
    assert story_id("tinystories", "Once.") == tinystories("Once.").id == "6015d968f1b8e955"
    assert writingprompts("A b", "Once.").id == writingprompts("C d", "Once.").id != tinystories("Once.").id


def test_file_of_ones_own_is_one_story_and_one_group():
    story = folder_text("sea.txt", "Waves.")
    assert (story.group, story.meta, story.text) == ("sea", {"file": "sea.txt"}, "Waves.")


def test_row_of_ones_own_takes_its_group_then_its_prompts_then_its_own():
    (given,) = folder_row(
        "a.jsonl", {"text": "One.", "prompt": "Begin!", "group": "book", "title": "First", "n": 1}
    )
    assert (given.group, given.prompt) == ("book", "Begin!")
    assert given.meta == {"file": "a.jsonl", "title": "First"}
    (prompted,) = folder_row("a.jsonl", {"text": "One.", "prompt": "Begin!"})
    (alone,) = folder_row("a.jsonl", {"text": "One.", "prompt": None})
    assert prompted.group == "begin"
    assert alone.group == alone.id


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "no_text"),
        ({"text": None}, "no_text"),
        ({"text": 7}, "text_not_text"),
        ({"text": "x", "prompt": ["a"]}, "prompt_not_text"),
        ({"text": " \n\t"}, "empty_text"),
        ({"text": "a\0b"}, "nul"),
        ({"text": "a\ud800b"}, "lone_surrogate"),
        ({"text": "x", "group": "\udfff"}, "lone_surrogate"),
    ],
)
def test_row_without_usable_text_says_why(row, reason):
    with pytest.raises(Unusable) as caught:
        folder_row("a.jsonl", row)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("prompt", "story", "reason"),
    [(None, "s", "no_prompt"), ("p", None, "no_text"), ("", "s", "empty_prompt"), ("p", "", "empty_text")],
)
def test_writing_prompt_needs_both_halves(prompt, story, reason):
    with pytest.raises(Unusable, match=f"^{reason}$"):
        writingprompts(prompt, story)
