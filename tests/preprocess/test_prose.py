"""Prose is cut where a reader would pause, and nothing of it is lost."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.language import length_in, word_count
from storyforge.preprocess.prose import (
    continuation_prompt,
    last_page,
    opening_part,
    prose_passages,
    sentences,
)

DIALOGUE = [f'"Are you {n}?" she asked.' if n % 2 else f'"No. I am {n}," he said.' for n in range(210)]


def test_prose_is_cut_between_paragraphs():
    paragraphs = [f"{'word ' * 19}end{n}." for n in range(5)]
    found = prose_passages("\n\n".join(paragraphs), 60)
    assert [passage.text.count("\n\n") + 1 for passage in found] == [2, 3]
    assert "\n\n".join(passage.text for passage in found) == "\n\n".join(paragraphs)


def test_a_long_dialogue_is_cut_between_lines_and_keeps_them():
    found = prose_passages("\n".join(DIALOGUE), 200)
    assert "\n".join(passage.text for passage in found).split("\n") == DIALOGUE
    assert max(word_count(passage.text) for passage in found) <= 200


def test_verse_without_stops_is_cut_between_lines():
    lines = [f"and so the river number {n} runs" for n in range(100)]
    found = prose_passages("\n".join(lines), 90)
    assert "\n".join(passage.text for passage in found).split("\n") == lines and len(found) > 7


def test_a_long_paragraph_is_cut_between_sentences():
    text = " ".join(f"{'word ' * 9}number{n}." for n in range(10))
    found = prose_passages(text, 30)
    assert all(passage.text.endswith(".") for passage in found)
    assert " ".join(passage.text for passage in found) == text


def test_words_without_any_stop_are_cut_too():
    assert max(word_count(passage.text) for passage in prose_passages("word " * 500, 40)) == 40


def test_a_text_without_spaces_is_cut_by_its_own_marks():
    text = "".join(f"第{n}天他在河边等她，风吹过来，没有人说话。" for n in range(80))
    found = prose_passages(text, 300, length_in("zh"))
    assert "".join(passage.text for passage in found) == text and len(found) > 3
    assert all(passage.text.endswith("。") for passage in found)


@pytest.mark.parametrize("rule", ["***", "* * *", "#", "~~~", "—", "— — —"])
@pytest.mark.parametrize("apart", ["\n\n", "\n"])
def test_a_rule_between_scenes_stays_with_the_scene_it_ends(rule, apart):
    text = apart.join([f"{'word ' * 19}end.", rule] * 6)
    assert all(p.text.endswith(rule) and p.text.startswith("word") for p in prose_passages(text, 50))
    assert all(p.text.startswith("word") for p in prose_passages(text, 12))
    assert opening_part(text, 23 + len(rule.split())).text.endswith("end.")
    assert last_page(f"{text}{apart}Last.", 4) == "Last."


def test_a_line_with_words_is_no_rule():
    lines = ["One.", "*Five*.", "—Seven?", "#8"]
    assert [passage.text for passage in prose_passages("\n\n".join(lines), 1)] == lines


def test_the_opening_part_ends_with_a_paragraph_and_knows_that_it_is_cut():
    text = "\n\n".join(["one two three.", "***", "four five six.", "seven eight nine."])
    part = opening_part(text, 8)
    assert (part.text, part.ends) == ("one two three.\n\n***\n\nfour five six.", False)
    assert opening_part(text, 5).text == "one two three."  # no rule between scenes where nothing follows
    assert opening_part(text, 100).ends


texts = st.lists(
    st.one_of(
        st.text(st.sampled_from('ab .!"\n')),
        st.text(st.sampled_from("她说。！\nМы ")),
        st.sampled_from(["\n\n", "\n", "***", "\n\n***\n\n", "    ", "Mr. A", "CHAPTER I."]),
        st.text(max_size=30),
    ),
    max_size=40,
).map("".join)


@given(texts, st.integers(20, 40), st.sampled_from(["en", "zh"]))
def test_passages_are_the_text_with_nothing_but_its_white_space_between_them(text, limit, language):
    text = text.strip()
    found, at = prose_passages(text, limit, length_in(language)), 0
    breaks = []  # the white space that a cut stands in
    for passage in found:
        start = text.index(passage.text, at) if passage.text else at
        breaks.append(text[at:start])
        at = start + len(passage.text)
    assert not "".join((*breaks, text[at:])).strip()
    joined = "".join(gap + passage.text for gap, passage in zip(breaks, found, strict=True))
    assert joined == text  # every character, and with them every line break
    assert [p.opens for p in found] == [True] + [False] * (len(found) - 1)
    assert [p.ends for p in found] == [False] * (len(found) - 1) + [True]


@given(texts, st.integers(20, 40), st.sampled_from(["en", "zh"]))
def test_no_passage_is_longer_than_the_limit(text, limit, language):
    length = length_in(language)
    assert all(length(passage.text) <= limit for passage in prose_passages(text.strip(), limit, length))


@pytest.mark.parametrize(
    "first",
    [
        "Mr. Smith came home.",
        "It was 5 a.m. when he left.",
        "CHAPTER I. The keeper slept.",
        "INT. HOUSE - DAY. He runs.",
        '"Stop!" said the cat.',
        "J. R. R. Tolkien wrote it.",
    ],
)
def test_an_abbreviation_or_a_heading_ends_no_sentence(first):
    assert sentences(f"{first} Then it rained.")[0].rstrip() == first


def test_sentences_of_other_scripts_end_at_their_own_marks():
    assert sentences("他来了。她走了！好。") == ["他来了。", "她走了！", "好。"]


@given(texts)
def test_sentences_give_the_text_again(text):
    assert "".join(sentences(text)) == text


def test_the_last_page_begins_with_a_paragraph_or_a_sentence():
    text = f"{'Long ago it rained. ' * 30}\n\nShe left.\n\n“Why?” he asked."
    assert last_page(text, 8) == "She left.\n\n“Why?” he asked."
    assert last_page("He ran on and on. " * 30, 20) == ("He ran on and on. " * 4).strip()
    assert word_count(last_page("word " * 100, 20)) == 20


def test_a_continuation_prompt_holds_the_page_last():
    assert continuation_prompt("She left.").endswith("\n\nShe left.")


@pytest.mark.parametrize("text", ["no\n", "x" * 30, "a b c d "])
def test_a_megabyte_is_cut_in_seconds(text):
    start = time.process_time()
    assert prose_passages(text * (1_000_000 // len(text)), 440)
    assert time.process_time() - start < 5
