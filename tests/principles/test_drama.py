import pytest

from storyforge.principles.checks import CHECKS
from storyforge.principles.drama import speeches

PROMPT = "Write a scene for a tragedy. Speakers: DUKE ALARIC, VESPERA, DROMIO OF SYRACUSE, DROMIO OF EPHESUS."


def spoken(text, prompt=PROMPT):
    return [(speech.speaker, speech.asked) for speech in speeches(prompt, text)]


@pytest.mark.parametrize(
    "text",
    [
        "VESPERA\nHere.\n\nDUKE ALARIC\nAy.",
        "VESPERA: Here.\nDUKE ALARIC: Ay.",
        "**Vespera:** Here.\n\n**Duke Alaric:** Ay.",
        "Vespera\nHere.\n\nAlaric: Ay.",
        "VESPERA (aside)\nHere.\nALARIC.\nAy.",
        "### VESPERA\r\n\r\nHere.\r\n\r\n### DUKE ALARIC\r\n\r\nAy.",
        "VESPERA [to ALARIC]: Here.\n\nDUKE ALARIC [to her]\nAy.",
    ],
)
def test_names_above_and_beside_speeches_are_read_in_any_layout(text):
    assert spoken(text) == [("vespera", True), ("duke alaric", True)]


@pytest.mark.parametrize(
    "text",
    [
        "Come, Vespera, come\nand see.",
        "What noise! who calls?\nNo one.",
        "ACT II\nSCENE III\nThe ramparts.",
        "O\nI\nMy lord: come in.",
        "[Enter VESPERA]\n(Exeunt)",
        "Speakers: DUKE ALARIC",
        "THE DUKE IS DEAD, AND VESPERA!\nAll is lost.",
    ],
)
def test_what_is_no_name_above_a_speech(text):
    assert spoken(text) == []


def test_a_name_with_nothing_below_it_was_cut_off_and_has_not_spoken():
    assert spoken("VESPERA\nHere.\n\nDUKE") == [("vespera", True)]


def test_half_a_name_that_two_share_is_nobody_asked_for():
    assert spoken("DROMIO\nSir.\n\nDROMIO OF EPHESUS\nSir.") == [
        ("dromio", False),
        ("dromio of ephesus", True),
    ]


def test_strangers_count_by_headings_and_the_first_heading_does_not(known):
    found = CHECKS["headings"](
        PROMPT, "BOY\nAy.\n\nVESPERA\nAy.\n\nBOY\nAy.\n\nBOY\nAy.\n\nVESPERA\nNo.", False, known
    )
    assert found.score == 0.5 and found.opportunities == 4 and len(found.spans) == 2
    assert CHECKS["headings"](PROMPT, "BOY\nAy.", False, known) is None


def test_more_names_alone_do_not_lower_the_share(known):
    few, many = (CHECKS["headings"](PROMPT, "VESPERA\nAy.\n\n" * n, False, known) for n in (2, 9))
    assert few.score == many.score == 1 and (few.opportunities, many.opportunities) == (1, 8)


def test_strangers_who_take_turns_are_no_turns(known):
    assert CHECKS["turns"](PROMPT, "VESPERA\nAy.\n\nBOY\nAy.\n\nVESPERA\nNo.", False, known).score == 0
    assert CHECKS["turns"]("A scene. Speakers: HODGE.", "HODGE\nAy.", False, known) is None


def test_a_story_is_no_scene(known):
    for name in ("speakers", "headings", "turns", "form"):
        assert CHECKS[name]("Tell of rain.", "VESPERA\nAy.", False, known) is None


@pytest.mark.parametrize(("end", "form"), [("M", 1), ("He", 1), ("DUKE AL", 1), ("He laughed, and", 0.5)])
def test_a_name_that_was_cut_in_the_middle_is_no_line_without_a_name(end, form, known):
    assert CHECKS["form"](PROMPT, f"VESPERA\nHere.\n\n{end}", False, known).score == form


def test_one_that_the_writer_left_so_is(known):
    assert CHECKS["form"](PROMPT, "VESPERA\nHere.\n\nM", True, known).score == 0.5
