"""Made-up writers whose faults are known, against a corpus without them."""

import random

import pytest

from storyforge.evaluate.writing import Piece, compare

VOCABULARY = [f"word{number}" for number in range(400)]
STARTS = ["finished", "looping", "words", "words_ratio"]


def text(seed, count=40, words=VOCABULARY):
    pick = random.Random(seed)
    return " ".join(pick.choice(words) for _ in range(count)) + "."


def pieces(texts, prompts=4, ended=True):
    return [Piece(f"p{n % prompts}", f"Tell of {n % prompts}.", text, ended) for n, text in enumerate(texts)]


GOOD = pieces([text(n) for n in range(8)])
CORPUS = [Piece(f"g{n}", f"Tell of {n}.", text(1000 + n), True) for n in range(80)]


def compared(base, tuned, corpus=CORPUS, training=(), opening_words=30):
    return compare(base, tuned, corpus, training=training, opening_words=opening_words, seed=1)


def rows(*args, **options):
    return compared(*args, **options)["measures"]


def test_a_writer_like_the_corpus_is_inside_its_range():
    found = rows(GOOD, pieces([text(60 + n) for n in range(8)]))
    assert {name: row for name, row in found.items() if row["outside"]} == {}
    row = found["distinct_1"]
    assert row["corpus"]["p1"] <= row["corpus"]["p5"] <= row["corpus"]["median"] <= row["corpus"]["p99"]


def test_a_writer_that_repeats_itself_is_told_from_the_corpus():
    loops = pieces([text(n, 5).rstrip(".") + " and " + "on and on we go and " * 8 for n in range(8)])
    found = rows(GOOD, loops)
    for name in ("distinct_2", "repeated_4", "longest_repeat", "looping", "gzip_ratio", "self_bleu"):
        assert found[name]["outside"] == ["tuned"], name
    assert found["looping"]["tuned"] == 1 and found["looping"]["base"] == 0
    assert found["distinct_2"]["difference"]["high"] < 0 < found["repeated_4"]["difference"]["low"]


def test_the_difference_is_that_of_the_means_and_its_groups_are_prompts():
    found = rows(GOOD, pieces([text(n, words=VOCABULARY[:30]) for n in range(8)]))
    for row in found.values():
        if row["difference"]:
            assert row["difference"]["value"] == pytest.approx(row["tuned"] - row["base"], abs=2e-6)
            assert row["difference"]["groups"] == 4


def test_only_what_both_writers_reached_is_compared():
    """Tuned stops after ten words on every second prompt; there base is not measured either."""
    short = [text(90 + n, 10 if n % 2 else 40) for n in range(8)]
    found = compared(GOOD, pieces(short))
    assert (found["samples"], found["compared"]) == (8, 4)
    only = compared(GOOD[::2], pieces(short)[::2])
    for name in ("distinct_1", "longest_repeat"):
        assert found["measures"][name]["base"] == only["measures"][name]["base"]
        assert found["measures"][name]["difference"]["groups"] == 2
    assert found["measures"]["words"]["tuned"] == 25


def test_longer_texts_are_measured_on_their_openings_alone():
    longer = [Piece(p.group, p.prompt, p.text + " word1" * 300, p.ended) for p in GOOD]
    plain, more = rows(GOOD, GOOD), rows(GOOD, longer)
    for name in plain.keys() - {"looping", "words", "finished"}:
        assert more[name]["tuned"] == plain[name]["tuned"], name


def test_writers_that_stop_at_once_leave_what_can_be_measured():
    found = compared(pieces(["", "No."]), pieces(["Yes.", ""]))
    assert found["compared"] == 0
    assert list(found["measures"]) == ["finished", "looping", "words"]


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
    assert rows(pieces([end], ended=ended), pieces([end], ended=ended))["finished"]["base"] == finished


def test_what_is_copied_from_training_shows():
    training = [GOOD[0].text, text(9999, 500)]
    found = rows(GOOD, pieces([text(70 + n) for n in range(8)]), training=iter(training))
    assert found["copied_8"]["base"] == found["copied_13"]["base"] == pytest.approx(1 / 8)
    assert found["copied_8"]["tuned"] == 0
    assert found["copied_8"]["outside"] == found["copied_13"]["outside"] == ["base"]


def test_samples_of_a_prompt_are_held_against_each_other():
    twice = pieces([GOOD[n % 4].text for n in range(8)])
    row = rows(GOOD, twice)["sample_distance"]
    assert row["tuned"] == 0 and row["base"] > 0.9 and row["corpus"] is None


def test_the_corpus_answers_to_one_prompt_are_a_reference_for_samples():
    corpus = [Piece(f"g{n // 2}", f"Tell of {n // 2}.", text(n), True) for n in range(100)]
    row = rows(GOOD, pieces([GOOD[n % 4].text for n in range(8)]), corpus)["sample_distance"]
    assert row["corpus"]["median"] > 0.9 and row["outside"] == ["tuned"]


def test_the_pool_has_one_answer_a_prompt():
    """Five samples of a prompt may resemble each other; that is another measure's business."""
    five = pieces([GOOD[n % 4].text for n in range(20)])
    assert rows(five, five)["self_bleu"]["base"] == rows(GOOD[:4], GOOD[:4])["self_bleu"]["base"]


def test_a_small_corpus_is_no_reference():
    assert all(row["corpus"] is None and not row["outside"] for row in rows(GOOD, GOOD, CORPUS[:20]).values())


def test_a_writer_exactly_at_the_edge_of_the_range_is_inside():
    """Every text has 13 different words in 30, a share that six digits do not hold."""
    same = " ".join(VOCABULARY[:13] + VOCABULARY[:1] * 17)
    corpus = [Piece(f"g{n}", f"Tell of {n}.", same, True) for n in range(60)]
    row = rows(pieces([same] * 4), pieces([same] * 4), corpus)["distinct_1"]
    assert row["base"] == row["corpus"]["p1"] == row["corpus"]["p99"] and row["outside"] == []


def test_names_of_one_group_are_elements_and_the_wording_of_prompts_is_not():
    """Every prompt says "Write of"; half of a play's prompts name its king."""
    corpus = [
        Piece(
            f"play{n % 5}", f"Write of KING{'ABCDE'[n % 5] * 3}.", f"King{'abcde'[n % 5] * 3} {text(n)}", True
        )
        for n in range(100)
    ]
    asked = [
        Piece("own", "Write of the lighthouse.", text, True) for text in (text(1), f"Lighthouses. {text(2)}")
    ]
    found = rows(asked, asked[::-1], corpus)["prompt_words"]
    assert found["base"] == found["tuned"] == 0.5
    assert found["corpus"]["median"] == 1


def test_a_length_asked_for_is_held_against_the_length_written():
    asked = [Piece("own", "Write 80 words.", text(1, 40), True)]
    row = rows(asked, asked)["words_ratio"]
    assert row["base"] == 0.5 and row["corpus"] is None


def test_the_same_input_gives_the_same_numbers():
    tuned = pieces([text(50 + n) for n in range(8)])
    assert compared(GOOD, tuned) == compared(GOOD, tuned)
