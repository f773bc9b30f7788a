"""Long scenes are cut where a reader would pause."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.passages import Speech, scene_passages, speeches

ENTER, EXIT = Speech("", ("[Enter ANNA]",)), Speech("", ("[Exit ANNA]",))


def speech(words: int, speaker: str = "ANNA", lines: int = 1) -> Speech:
    return Speech(speaker, tuple("word " * (words // lines - 1) + "end." for _ in range(lines)))


def test_a_short_scene_is_one_passage_that_opens_and_ends_it():
    (passage,) = scene_passages([ENTER, speech(10), speech(10, "CLARA"), EXIT], 50)
    assert (passage.opens, passage.ends, passage.speakers) == (True, True, ("ANNA", "CLARA"))
    assert passage.text.startswith("[Enter ANNA]\n\nANNA\nword") and passage.text.endswith("\n\n[Exit ANNA]")
    assert "ANNA" not in passage.body and "[" not in passage.body


def test_passages_are_few_and_even():
    found = scene_passages([speech(9) for _ in range(7)], 40)  # ten words each, with the name
    assert sorted(len(passage.text.split()) for passage in found) == [30, 40]
    assert [(p.opens, p.ends) for p in found] == [(True, False), (False, True)]


def test_evenness_beats_greed():
    lengths = [len(p.text.split()) for p in scene_passages([speech(19) for _ in range(6)], 100)]
    assert lengths == [60, 60]


def test_an_entrance_begins_a_passage_and_an_exit_ends_one():
    found = scene_passages([speech(18), EXIT, ENTER, speech(18)], 30)
    assert found[0].text.endswith("[Exit ANNA]")
    assert found[1].text.startswith("[Enter ANNA]")


def test_a_long_speech_is_cut_between_lines_and_named_again():
    found = scene_passages([speech(100, lines=10)], 40)
    assert all(passage.text.startswith("ANNA\n") for passage in found)
    assert all(passage.text.endswith("end.") for passage in found)
    assert max(len(passage.text.split()) for passage in found) <= 40


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(20, 60))
def test_no_word_of_a_scene_is_lost(lengths, limit):
    scene = [speech(length) for length in lengths]
    passages = scene_passages(scene, limit)
    assert " ".join(p.body for p in passages).split() == " ".join(s.spoken for s in scene).split()
    assert [p.opens for p in passages] == [True] + [False] * (len(passages) - 1)
    assert [p.ends for p in passages] == [False] * (len(passages) - 1) + [True]


# Two spaces at a line's end are how the plays break lines.
SCENE = r"""_Enter ANNA and two
Porters_

**ANNA**  
Put it down here,  
I say.

_Exit a Porter_

And gently.

**First Porter**  
_\[Aside]_  
It is heavy -- and CLARA 's, & c.

_Exeunt_
"""


def test_a_scene_becomes_speeches_and_directions():
    assert speeches(SCENE) == [
        Speech("", ("[Enter ANNA and two Porters]",)),
        Speech("ANNA", ("Put it down here,", "I say.", "[Exit a Porter]", "And gently.")),
        Speech("FIRST PORTER", ("[Aside]", "It is heavy -- and CLARA's, &c.")),
        Speech("", ("[Exeunt]",)),
    ]


def test_a_speech_prints_its_speaker_once():
    assert str(speeches(SCENE)[1]) == "ANNA\nPut it down here,\nI say.\n[Exit a Porter]\nAnd gently."
    assert speeches(SCENE)[1].spoken == "Put it down here,\nI say.\nAnd gently."


@pytest.mark.parametrize(
    "direction",
    ["_Aside_", "*Aside.*", r"_\[Aside]_", r"__\[Aside]_", "[Aside]_", "[Aside]", "*[Aside.]*"],
)
def test_every_spelling_of_a_direction_is_one(direction):
    found = speeches(f"**ANNA**  \n{direction}  \nYes.")
    assert found[0].lines[0].replace(".", "") == "[Aside]"
    assert found[0].lines[1] == "Yes."


def test_a_name_that_lost_half_its_emphasis_is_whole_again():
    found = speeches(
        "**ANNA**  \nHe comes.  \nBISHOP\n\n**OF ELY**  \nI come.\n\nVarro's\n\n**Servant**  \nAnd I."
    )
    assert [(speech.speaker, speech.lines) for speech in found] == [
        ("ANNA", ("He comes.",)),
        ("BISHOP OF ELY", ("I come.",)),
        ("VARRO'S SERVANT", ("And I.",)),
    ]


def test_several_speak_together():
    assert speeches("**ANNA & CLARA**  \nWe do.")[0].speaker == "ANNA AND CLARA"


def test_an_epilogue_at_the_end_of_a_scene_speaks_for_itself():
    found = speeches("**ANNA**  \nGood night.\n\nEPILOGUE  \nOur play is done.")
    assert found[1] == Speech("EPILOGUE", ("Our play is done.",))


@pytest.mark.parametrize(
    ("markdown", "scene", "first"),
    [
        ("Now hear our tale.", "Prologue", Speech("PROLOGUE", ("Now hear our tale.",))),
        ("attending.\n\n**ANNA**  \nYes.", "II", Speech("", ("[attending.]",))),  # the rest of a heading
        ("_Enter TIMON_\n\nO sun!", "II", Speech("TIMON", ("O sun!",))),
        ("_Enter TIMON and ANNA_\n\nO sun!", "II", Speech("", ("O sun!",))),
    ],
)
def test_words_without_a_speaker_get_one_only_where_it_is_plain(markdown, scene, first):
    assert first in speeches(markdown, scene)


@given(st.text(st.sampled_from("AB ab.*_[]\\\n#")) | st.text())
def test_no_markdown_is_left_and_nothing_is_too_odd(text):
    for speech in speeches(text):
        assert not set("*_") & set(str(speech))
        assert all(speech.lines)
