"""Prompts are made of what is known, worded by the exchange's own key."""

from storyforge.preprocess.passages import Passage
from storyforge.preprocess.prompts import (
    LATER_WORDINGS,
    SCENE_WORDINGS,
    STORY_WORDINGS,
    opening_prompt,
    scene_prompt,
)

MIDDLE = Passage("ANNA\nYes.", opens=False, ends=False, speakers=("ANNA", "FIRST PORTER"))


def test_a_scene_prompt_names_genre_place_speakers_and_part():
    prompts = {scene_prompt(str(key), "history", "London. The palace.", MIDDLE) for key in range(60)}
    assert prompts == {
        wording.format(
            part="a passage from the middle of a scene",
            kind="history play",
            place=" Place: London. The palace.",
            speakers=" Speakers: ANNA, FIRST PORTER.",
        )
        for wording in SCENE_WORDINGS
    }


def test_the_same_key_words_it_the_same():
    assert scene_prompt("x", "comedy", "", MIDDLE) == scene_prompt("x", "comedy", "", MIDDLE)


def test_what_is_not_known_is_not_said():
    alone = Passage("[Alarum]", opens=True, ends=True)
    prompt = scene_prompt("x", "comedy", "The same.", alone)
    assert "Place" not in prompt and "Speakers" not in prompt and "same" not in prompt
    assert "a whole short scene" in prompt
    assert "Place: A street." in scene_prompt("x", "comedy", "The same. A street.", alone)


def test_the_part_is_said():
    first, last = Passage("", opens=True, ends=False), Passage("", opens=False, ends=True)
    assert "the opening of a scene" in scene_prompt("x", "tragedy", "", first)
    assert "the end of a scene" in scene_prompt("x", "tragedy", "", last)


def test_an_opening_prompt_quotes_the_first_sentence_and_names_the_register():
    story = Passage('"Stop!" said the cat. It sat down.', opens=True, ends=True)
    prompts = {opening_prompt(str(key), "a tale", story) for key in range(60)}
    assert len(prompts) == len(STORY_WORDINGS)
    assert all("a tale" in prompt and '"Stop!"' in prompt and "It sat" not in prompt for prompt in prompts)


def test_a_long_first_sentence_is_shortened():
    story = Passage("word " * 100, opens=True, ends=True)
    assert "word " * 30 + "…" in opening_prompt("x", "a tale", story)


def test_a_later_passage_is_asked_for_as_one():
    story = Passage("Then it rained.", opens=False, ends=True)
    prompts = {opening_prompt(str(key), "a tale", story) for key in range(60)}
    assert prompts == {
        wording.format(register="a tale", opening="Then it rained.") for wording in LATER_WORDINGS
    }
