"""Long texts are cut where a reader would pause."""

from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.passages import opening_part, prose_passages, scene_passages
from storyforge.preprocess.plays import Speech

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


def test_prose_is_cut_between_paragraphs():
    paragraphs = [f"{'word ' * 19}end{n}." for n in range(5)]
    found = prose_passages("\n\n".join(paragraphs), 60)
    assert [passage.text.count("\n\n") + 1 for passage in found] == [2, 3]
    assert "\n\n".join(passage.text for passage in found) == "\n\n".join(paragraphs)


def test_a_long_paragraph_is_cut_between_sentences():
    text = " ".join(f"{'word ' * 9}number{n}." for n in range(10))
    found = prose_passages(text, 30)
    assert all(passage.text.endswith(".") for passage in found)
    assert " ".join(passage.text for passage in found) == text


def test_words_without_any_stop_are_cut_too():
    assert max(len(p.text.split()) for p in prose_passages("word " * 500, 40)) == 40


def test_the_opening_part_ends_with_a_paragraph_and_knows_that_it_is_cut():
    text = "\n\n".join(["one two three.", "***", "four five six.", "seven eight nine."])
    part = opening_part(text, 8)
    assert (part.text, part.ends) == ("one two three.\n\n***\n\nfour five six.", False)
    assert opening_part(text, 5).text == "one two three."  # no rule between scenes where nothing follows
    assert opening_part(text, 100).ends


@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(20, 60))
def test_no_word_of_a_scene_is_lost(lengths, limit):
    scene = [speech(length) for length in lengths]
    passages = scene_passages(scene, limit)
    assert " ".join(p.body for p in passages).split() == " ".join(s.spoken for s in scene).split()
    assert [p.opens for p in passages] == [True] + [False] * (len(passages) - 1)
    assert [p.ends for p in passages] == [False] * (len(passages) - 1) + [True]


@given(st.text(st.sampled_from("ab .!\n")), st.integers(20, 40))
def test_no_word_of_prose_is_lost(text, limit):
    assert " ".join(p.text for p in prose_passages(text, limit)).split() == text.split()
