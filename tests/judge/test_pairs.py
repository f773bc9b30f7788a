"""Equal lengths, both orders, and what verdicts come to."""

import math

import pytest

from storyforge.core.words import words
from storyforge.judge.pairs import cut, matches, questions, rows, tally
from storyforge.judge.texts import Text
from storyforge.judge.verdicts import Judged, judged
from storyforge.judging.calls import Answer

RAIN = "The rain fell. Nobody in the town minded it at all! The miller slept on and on"
TIDE = "[Enter MILLER, wet]\n\nMILLER\nI drown."


def text(writer, said, prompt="p0", sample=0, ended=False):
    return Text(prompt, "g", f"Tell of {prompt}.", sample, 1, writer, said, 9, ended)


def answer(overall, **principles):
    single = {name: {"better": better, "margin": 2} for name, better in principles.items()}
    return Answer({"principles": single, "overall": {"better": overall, "margin": 3}}, None)


MISSING = Answer(None, "refusal")


def of(forward, backward, prompt="p0", sample=0, repeat=0):
    (asked,) = questions([text("a", RAIN, prompt, sample), text("b", TIDE, prompt, sample)], [("a", "b")])
    asked = type(asked)(asked.prompt, asked.a, asked.b, asked.label, repeat, asked.about)
    return Judged(asked, forward, backward)


@pytest.mark.parametrize(
    ("count", "kept"),
    [
        (3, "The rain fell."),
        (5, "The rain fell."),
        (9, "The rain fell. Nobody in the town minded it"),  # its one sentence is less than half
        (10, "The rain fell. Nobody in the town minded it at"),
        (11, "The rain fell. Nobody in the town minded it at all!"),
        (99, "The rain fell. Nobody in the town minded it at all!"),
    ],
)
def test_a_text_is_cut_at_the_last_end_of_a_sentence_that_fits(count, kept):
    assert cut(RAIN, count) == kept


def test_a_direction_ends_a_sentence_and_an_unended_text_is_cut_at_a_word():
    assert cut(TIDE, 4) == "[Enter MILLER, wet]"
    assert cut("one two three four", 3) == "one two three"
    assert cut("", 3) == ""


def test_both_texts_have_no_more_words_than_the_shorter_one():
    (asked,) = questions([text("a", RAIN), text("b", TIDE)], [("a", "b")])
    assert [len(words(side.text)) for side in (asked.a, asked.b)] == [3, 6]
    assert asked.a.text == "The rain fell." and asked.b.text == TIDE


def test_beside_an_empty_text_the_other_one_stays_whole():
    (asked,) = questions([text("a", ""), text("b", TIDE)], [("a", "b")])
    assert (asked.a.text, asked.b.text) == ("", TIDE)


def test_a_text_that_lost_its_end_did_not_end_by_itself():
    (asked,) = questions([text("a", f"{RAIN}.", ended=True), text("b", TIDE, ended=True)], [("a", "b")])
    assert not asked.a.ended and asked.b.ended


def test_writers_are_paired_by_prompt_and_sample_and_never_named_to_the_judge():
    texts = [text(w, RAIN, p, n) for w in ("a", "b", "human") for p in ("p0", "p1") for n in (0, 1)]
    asked = questions(texts[:-1], [("a", "b"), ("b", "a")], repeats=1)
    assert [(one.about["prompt_id"], one.about["sample"], one.repeat) for one in asked[:8]] == [
        (prompt, sample, repeat) for prompt in ("p0", "p1") for sample in (0, 1) for repeat in (0, 1)
    ]
    assert len(asked) == 16 and asked[8].about["pair"] == ["b", "a"]


def test_both_orders_are_asked_and_the_texts_change_places():
    shown = []

    def judge(asked):
        shown.extend((one.a.text, one.b.text) for one in asked)
        return [answer("A")] * len(asked)

    (found,) = judged(judge, questions([text("a", RAIN), text("b", TIDE)], [("a", "b")]))
    assert shown[0] == shown[1][::-1] and shown[0][1] == TIDE
    assert found.overall == "tie"  # it says A whatever stands there


@pytest.mark.parametrize(
    ("forward", "backward", "overall"),
    [("A", "B", "A"), ("B", "A", "B"), ("tie", "tie", "tie"), ("A", "A", "tie"), ("A", "tie", "tie")],
)
def test_what_is_not_the_same_after_the_swap_is_a_tie(forward, backward, overall):
    found = of(answer(forward, premise=forward), answer(backward, premise=backward))
    assert found.verdict == {"premise": overall, "overall": overall}


@pytest.mark.parametrize("both", [(MISSING, answer("B")), (answer("A"), MISSING)])
def test_a_missing_verdict_is_counted_and_takes_no_part(both):
    found = [of(*both), of(answer("A", premise="B"), answer("B", premise="A"), "p1")]
    told = tally(found)
    assert (told["wins"], told["losses"], told["ties"], told["missing"]) == (1, 0, 0, 1)
    assert told["principles"] == {"premise": {"wins": 0, "losses": 1, "ties": 0}}
    assert [match.prompt for match in matches(found)] == ["p1"]
    assert [row["why"] for row in rows(found)].count("refusal") == 1 and len(rows(found)) == 4


def test_no_verdict_at_all_has_no_rate():
    told = tally([of(MISSING, MISSING)])
    assert told["missing"] == 1 and told["win_rate"]["value"] is told["position_bias"] is None
    assert told["length_controlled"]["value"] is told["log_words"] is None


def test_position_bias_is_the_share_that_names_the_same_place_in_both_orders():
    found = [
        of(answer("A"), answer("A"), "p0"),
        of(answer("B"), answer("B"), "p1"),
        of(answer("A"), answer("B"), "p2"),
        of(answer("tie"), answer("tie"), "p3"),
    ]
    assert tally(found)["position_bias"] == 0.5
    assert tally(found)["win_rate"]["value"] == pytest.approx(0.625)


def test_repeats_tell_how_steady_the_judge_is_and_nothing_else():
    found = [
        of(answer("A"), answer("B"), "p0", repeat=0),
        of(answer("B"), answer("A"), "p0", repeat=1),
        of(answer("A"), answer("B"), "p0", repeat=2),
        of(answer("A"), MISSING, "p0", repeat=3),
    ]
    told = tally(found)
    assert (told["wins"], told["losses"], told["missing"]) == (1, 0, 0)
    assert told["self_consistency"] == 0.5
    assert tally(found[:1])["self_consistency"] is None


def test_the_difference_in_length_is_that_of_the_texts_as_shown():
    (match,) = matches([of(answer("A"), answer("B"))])
    assert match.longer == pytest.approx(math.log(3 / 6)) and match.outcome == 1
    assert tally([of(answer("A"), answer("B"))])["log_words"] == pytest.approx(math.log(0.5), abs=1e-6)


def test_every_verdict_is_kept_as_it_was_given():
    first, second = rows([of(answer("A", premise="B"), answer("tie"))])
    assert first["shown"] == ["a", "b"] and second["shown"] == ["b", "a"]
    assert (first["order"], second["order"]) == (0, 1) and first["pair"] == second["pair"] == ["a", "b"]
    assert first["principles"] == {"premise": {"better": "B", "margin": 2}}
    assert second["overall"] == {"better": "tie", "margin": 3} and second["why"] is None
