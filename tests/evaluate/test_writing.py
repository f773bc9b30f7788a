"""Made-up writers whose faults are known, against a corpus without them."""

import random
from dataclasses import replace

import pytest

from storyforge.core.records import Exchange
from storyforge.evaluate.writing import measure_writing

VOCABULARY = [f"word{number}" for number in range(400)]


def text(seed, count=40, words=VOCABULARY):
    pick = random.Random(seed)
    return " ".join(pick.choice(words) for _ in range(count)) + "."


def answer(group, prompt, text, ended=True):
    return Exchange("id", "made", group, prompt, text, ended)


def answers(texts, prompts=4, ended=True):
    return [answer(f"p{n % prompts}", f"Tell of {n % prompts}.", text, ended) for n, text in enumerate(texts)]


GOOD = answers([text(n) for n in range(8)])
CORPUS = [answer(f"g{n}", f"Tell of {n}.", text(1000 + n)) for n in range(80)]


def compared(base, tuned, corpus=CORPUS, training=(), opening_words=30):
    return measure_writing(base, tuned, corpus, training=training, opening_words=opening_words, seed=1)


def rows(*args, **options):
    return compared(*args, **options)["measures"]


def test_a_writer_like_the_corpus_is_inside_its_range():
    found = rows(GOOD, answers([text(60 + n) for n in range(8)]))
    assert {name: row for name, row in found.items() if row["outside"]} == {}
    row = found["distinct_2"]
    assert row["corpus"]["p1"] <= row["corpus"]["p5"] <= row["corpus"]["median"] <= row["corpus"]["p99"]


def test_a_writer_that_repeats_itself_is_told_from_the_corpus():
    loops = answers([text(n, 5).rstrip(".") + " and " + "on and on we go and " * 8 for n in range(8)])
    found = rows(GOOD, loops)
    for name in ("distinct_2", "longest_repeat", "self_bleu"):
        assert found[name]["outside"] == ["tuned"], name
    assert found["distinct_2"]["difference"]["high"] < 0 < found["longest_repeat"]["difference"]["low"]


def test_the_difference_is_that_of_the_means_and_its_groups_are_prompts():
    found = rows(GOOD, answers([text(n, words=VOCABULARY[:30]) for n in range(8)]))
    for row in found.values():
        if row["difference"]:
            assert row["difference"]["value"] == pytest.approx(row["tuned"] - row["base"], abs=2e-6)
            assert row["difference"]["groups"] == 4


def test_only_what_both_writers_reached_is_compared():
    """Tuned stops after ten words on every second prompt; there base is not measured either."""
    short = [text(90 + n, 10 if n % 2 else 40) for n in range(8)]
    found = compared(GOOD, answers(short))
    assert (found["samples"], found["compared"]) == (8, 4)
    only = compared(GOOD[::2], answers(short)[::2])
    for name in ("distinct_2", "longest_repeat"):
        assert found["measures"][name]["base"] == only["measures"][name]["base"]
        assert found["measures"][name]["difference"]["groups"] == 2
    assert found["measures"]["words"]["tuned"] == 25


def test_longer_texts_are_measured_on_their_openings_alone():
    longer = [replace(text, story=text.story + " word1" * 300) for text in GOOD]
    plain, more = rows(GOOD, GOOD), rows(GOOD, longer)
    for name in plain.keys() - {"words", "finished"}:
        assert more[name]["tuned"] == plain[name]["tuned"], name


def test_writers_that_stop_at_once_leave_what_can_be_measured():
    found = compared(answers(["", "No."]), answers(["Yes.", ""]))
    assert found["compared"] == 0
    assert list(found["measures"]) == ["finished", "words"]


@pytest.mark.parametrize(
    "end, ended, finished",
    [
        ("He left.", True, 1),
        ("He left!”", True, 1),
        ("He left…", True, 1),
        ("[Exeunt]", True, 1),
        ("*He left.*\n", True, 1),
        ("He left.", False, 0),
        ("He left", True, 0),
        ("KING OSWIN:", True, 0),
        ("", True, 0),
    ],
)
def test_finished_is_ended_by_itself_on_a_mark_that_ends(end, ended, finished):
    assert rows(answers([end], ended=ended), answers([end], ended=ended))["finished"]["base"] == finished


def test_what_is_copied_from_training_shows():
    training = [GOOD[0].story, text(9999, 500)]
    found = rows(GOOD, answers([text(70 + n) for n in range(8)]), training=iter(training))
    assert found["copied_8"]["base"] == pytest.approx(1 / 8)
    assert found["copied_8"]["tuned"] == 0
    assert found["copied_8"]["outside"] == ["base"]


def test_the_pool_has_one_answer_a_prompt():
    """Five samples of a prompt resemble each other more than answers to different prompts do."""
    five = answers([GOOD[n % 4].story for n in range(20)])
    assert rows(five, five)["self_bleu"]["base"] == rows(GOOD[:4], GOOD[:4])["self_bleu"]["base"]


def test_a_small_corpus_is_no_reference():
    assert all(row["corpus"] is None and not row["outside"] for row in rows(GOOD, GOOD, CORPUS[:20]).values())


def test_a_writer_exactly_at_the_edge_of_the_range_is_inside():
    """Every text has 14 different pairs in 29, a share that six digits do not hold."""
    same = " ".join(VOCABULARY[:13] + VOCABULARY[:1] * 17)
    corpus = [answer(f"g{n}", f"Tell of {n}.", same) for n in range(60)]
    row = rows(answers([same] * 4), answers([same] * 4), corpus)["distinct_2"]
    assert row["base"] == row["corpus"]["p1"] == row["corpus"]["p99"] and row["outside"] == []


def test_names_of_one_group_are_elements_and_the_wording_of_prompts_is_not():
    """Every prompt says "Write of"; half of a play's prompts name its king."""
    corpus = [
        answer(f"play{n % 5}", f"Write of KING{'ABCDE'[n % 5] * 3}.", f"King{'abcde'[n % 5] * 3} {text(n)}")
        for n in range(100)
    ]
    asked = [answer("own", "Write of the lighthouse.", text) for text in (text(1), f"Lighthouses. {text(2)}")]
    found = rows(asked, asked[::-1], corpus)["prompt_words"]
    assert found["base"] == found["tuned"] == 0.5
    assert found["corpus"]["median"] == 1


def test_a_length_asked_for_is_held_against_the_length_written():
    asked = [answer("own", "Write 80 words.", text(1, 40))]
    row = rows(asked, asked)["words_ratio"]
    assert row["base"] == 0.5 and row["corpus"] is None


def test_the_same_input_gives_the_same_numbers():
    tuned = answers([text(50 + n) for n in range(8)])
    assert compared(GOOD, tuned) == compared(GOOD, tuned)
