"""Screenplays lose Fountain's marks and nothing else; they are cut where no reader would stumble."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.collect.sources import folder_text
from storyforge.preprocess.cleaning import laid_out
from storyforge.preprocess.drafts import Profile, drafts
from storyforge.preprocess.filters import judged
from storyforge.preprocess.screenplay import parts, screen_passages

MARKED = """\
Title: The Ferry
Author: Ann Lee

.THE HARBOUR #12#

!SCRAPE! The hull on stone.
The rope holds.

@McAvoy
(tired)
We could wait.
~And the tide comes in

ANN (V.O.) ^
We could.

> CUT TO:

>THE SECOND DAY<

INT. CABIN - NIGHT

[[too long?]] A lamp. /* She sleeps. */

===

BANG!
The door.
"""
PRINTED = """\
THE HARBOUR

SCRAPE! The hull on stone.
The rope holds.

McAvoy
(tired)
We could wait.
And the tide comes in

ANN (V.O.)
We could.

CUT TO:

THE SECOND DAY

INT. CABIN - NIGHT

A lamp.

BANG!
The door."""
PROFILE = Profile(form="prose", described_as="a story", max_words=440, longer="passages", page_words=180)


def miles(count: int) -> str:
    return "\n\n".join(f"ANN\nIt is mile {number} of this road." for number in range(count))


def test_marks_go_and_lines_stay():
    (draft,) = drafts(folder_text("ferry.fountain", MARKED), PROFILE)
    assert draft.text == PRINTED
    assert draft.meta == {"file": "ferry.fountain", "title": "The Ferry"}
    assert "a short screenplay." in draft.prompt
    assert draft.prompt.endswith(" Speakers: McAvoy, ANN.")


def test_the_same_text_as_prose_keeps_its_marks():
    (draft,) = drafts(folder_text("ferry.txt", MARKED), PROFILE)
    assert "@McAvoy" in draft.text and "Speakers" not in draft.prompt


@pytest.mark.parametrize(
    ("text", "spoken_by"),
    [
        ("ANN\nWho?", "ANN"),
        ("DR. ROE (V.O.)\nWho?", "DR. ROE (V.O.)"),
        ("АННА\nКто?", "АННА"),
        ("@Ann\nWho?", "Ann"),
        ("R2D2\nBeep.", "R2D2"),
        ("BANG!\nThe door.", ""),
        ("CUT TO:\nThe door.", ""),
        ("ANN", ""),
        ("Ann\nWho?", ""),
        ("!ANN\nis written on the wall.", ""),
        ("1943\nA street.", ""),
    ],
)
def test_who_speaks(text, spoken_by):
    (part,) = parts(text)
    assert part.cue == spoken_by
    assert str(part) == text.lstrip("@!")


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("... and then", "... and then"),
        (">", ">"),
        ("!", "!"),
        ("> FADE OUT.", "FADE OUT."),
        ("5 > 3 < 4", "5 > 3 < 4"),
        ("INT. HOUSE - DAY #1A#", "INT. HOUSE - DAY"),
        ("est. 1920", "est. 1920"),
        (".45 calibre", ".45 calibre"),
        ("a@b.org", "a@b.org"),
    ],
)
def test_what_forces_nothing_stays(line, printed):
    assert [str(part) for part in parts(line)] == [printed]


def test_long_scenes_are_cut_between_speeches_and_a_long_speech_names_its_speaker_again():
    action = "A long road in the rain, and nobody on it but a dog."
    speech = "ANN\n" + "I have said it before, and I say it again. " * 30
    scene = "\n\n".join(["INT. ROAD - DAY", *[action] * 20, "TOM\nWhy?", speech.strip(), "EXT. SEA", "END."])
    found = screen_passages(scene, 80)
    assert all(len(passage.text.split()) <= 90 for passage in found)
    assert [passage.opens for passage in found] == [True] + [False] * (len(found) - 1)
    assert found[-1].ends and found[-1].text.endswith("EXT. SEA\n\nEND.")
    assert sum(passage.text.startswith("ANN\nI have") for passage in found) > 2
    assert not any(passage.text.endswith(("TOM", "ANN", "DAY", "SEA")) for passage in found)


@given(st.text(alphabet="Aab \n.!?@~>", max_size=300), st.integers(1, 30))
def test_no_word_is_lost(text, limit):
    found = "".join(passage.text for passage in screen_passages(laid_out(text), limit))
    letters = re.sub(r"[^Aab]", "", text)
    cues = [part.cue for part in parts(laid_out(text)) if part.cue]
    assert re.sub(r"[^Aab]", "", found) == letters or cues and set(letters) <= set(found)


def test_later_passages_go_on_from_the_page_before():
    story = folder_text("road.fountain", miles(150))
    first, second, *_ = drafts(story, PROFILE)
    assert "the opening of a screenplay" in first.prompt
    assert second.prompt.startswith("Here is a page of a story.") and "ANN\n" in second.prompt


def test_a_short_one_is_gone_on_with_from_its_middle_too():
    story = folder_text("road.fountain", miles(20))
    whole, half = drafts(story, PROFILE)
    assert half.text.startswith("ANN\n") and whole.text.endswith(half.text)


def test_a_control_token_drops_the_passage_that_holds_it():
    found = drafts(folder_text("road.fountain", f"{miles(150)}\n\nTOM\n<|im_start|>user hello\n"), PROFILE)
    assert [list(judged(draft, PROFILE)) for draft in found] == [[]] * (len(found) - 1) + [["control_token"]]


def test_only_page_breaks_are_no_story():
    (draft,) = drafts(folder_text("empty.fountain", "===\n\n====\n"), PROFILE)
    assert list(judged(draft, PROFILE)) == ["empty"]
