"""A judge that judges, one that does not, and one that obeys the texts."""

import random
from collections import Counter

import pytest
from pipeline import story

from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.judge.gate import INSTRUCTIONS, KINDS, PLANTED, SHOWN_WORDS, gate, obvious, sentences
from storyforge.judging.calls import Answer

TESTS = [
    Exchange(f"t{n}", "made", f"g{n % 4}", f"Tell of {n}.", story(random.Random(n)), True) for n in range(14)
]


@pytest.fixture(scope="module")
def pairs():
    return obvious(TESTS, 60, seed=3)


def said(better):
    return Answer({"principles": {}, "overall": {"better": better, "margin": 3}}, None)


def judge_of(choose):
    """A judge by what two texts say."""
    return lambda asked: [said(choose(one.a.text, one.b.text)) for one in asked]


def bare(text):
    """Without an instruction."""
    for order in INSTRUCTIONS:
        text = text.removesuffix(f"\n{order}")
    return text


def oracle(pairs):
    """It knows the better text of each pair; of a text beside itself, the one without an instruction."""
    better = {frozenset((one.a.text, one.b.text)): one.a.text for one in pairs}

    def choose(a, b):
        if bare(a) == bare(b):
            return "A" if a == bare(a) else "B"
        return "A" if bare(a) == better[frozenset((bare(a), bare(b)))] else "B"

    return choose


def test_sentences_put_together_are_the_text():
    text = TESTS[0].story
    assert "".join(sentences(text)).strip() == text.strip() and len(sentences(text)) == 8


def test_there_are_as_many_pairs_of_each_kind_in_the_order_of_a_hash(pairs):
    assert Counter(one.about["pair"][1] for one in pairs) == dict.fromkeys(KINDS, 12)
    assert obvious(TESTS[::-1], 60, seed=3) == pairs != obvious(TESTS, 60, seed=4)
    assert len({(one.a, one.b) for one in pairs}) == 60


def test_the_worse_text_is_what_its_kind_says(pairs):
    for one in pairs:
        kind, good, bad = one.about["pair"][1], words(one.a.text), words(one.b.text)
        assert one.a.text != one.b.text and len(good) <= SHOWN_WORDS
        if kind == "shuffled":
            assert sorted(good) == sorted(bad) and good != bad
        elif kind == "half":
            assert bad == good[: len(good) // 2] and not one.b.ended
        elif kind == "loop":
            assert bad[: len(bad) // 3] * 3 == bad
        elif kind == "padded":
            assert len(bad) > 1.5 * len(good) and [word for word in bad if word in good][:3] == good[:3]
        else:
            assert any(test.story.startswith(one.b.text) and test.prompt != one.prompt for test in TESTS)


def test_a_judge_that_is_right_is_fit(pairs):
    told, kept = gate(judge_of(oracle(pairs)), pairs, list(KINDS))
    assert told["why"] is None and told["right"] == 1 and told["missing"] == 0
    assert told["kinds"]["loop"] == {"right": 12, "pairs": 12, "claimed": True}
    assert told["planted"] == {"pairs": PLANTED, "moved": 0, "missing": 0}
    assert len(kept) == 60 + PLANTED


@pytest.mark.parametrize("choice", ["A", "tie"])
def test_a_judge_that_looks_at_the_place_alone_is_unfit(pairs, choice):
    told, _ = gate(judge_of(lambda a, b: choice), pairs, list(KINDS))
    assert told["right"] == 0 and told["why"] == "0.0% of 60 obvious pairs judged right, not 95%"


def test_longest_is_best_is_unfit(pairs):
    told, _ = gate(judge_of(lambda a, b: "A" if len(a) > len(b) else "B"), pairs, list(KINDS))
    assert told["kinds"]["padded"]["right"] == 0 and told["kinds"]["half"]["right"] == 12 and told["why"]


@pytest.mark.parametrize("order", INSTRUCTIONS)
def test_a_judge_that_obeys_an_instruction_in_a_text_is_unfit(pairs, order):
    wise = oracle(pairs)

    def obeys(a, b):
        if (order in a) != (order in b):
            return "A" if order in a else "B"
        return wise(a, b)

    told, _ = gate(judge_of(obeys), pairs, list(KINDS))
    assert told["right"] == 1 and told["why"] == "instructions in a text moved 3 of 12 verdicts"


def test_missing_verdicts_are_not_right(pairs):
    told, _ = gate(lambda asked: [Answer(None, "refusal")] * len(asked), pairs, list(KINDS))
    assert told["missing"] == 72 and told["right"] == 0 and told["why"]


def test_a_judge_that_refuses_most_texts_with_instructions_is_not_shown_to_withstand_them(pairs):
    wise, orders = judge_of(oracle(pairs)), INSTRUCTIONS

    def refusing(count):
        def judge(asked):
            answers, refused = wise(asked), 0
            for number, question in enumerate(asked):
                if refused < 2 * count and any(
                    order in question.a.text + question.b.text for order in orders
                ):
                    answers[number], refused = Answer(None, "refusal"), refused + 1
            return answers

        return judge

    told = [gate(refusing(count), pairs, list(KINDS))[0] for count in (6, 7)]
    assert [each["why"] for each in told] == [None, "no verdict on 7 of 12 texts with instructions"]


def test_kinds_that_a_judge_does_not_claim_are_told_and_do_not_count(pairs):
    wise, loops = oracle(pairs), {one.b.text for one in pairs if one.about["pair"][1] == "loop"}

    def sees_loops(a, b):
        return wise(a, b) if {bare(a), bare(b)} & loops else "tie"

    told, _ = gate(judge_of(sees_loops), pairs, ["loop"])
    assert told["why"] is None and told["counted"] == 12
    assert told["kinds"]["half"] == {"right": 0, "pairs": 12, "claimed": False}


def test_without_a_story_to_make_pairs_of_no_judge_is_fit():
    short = [Exchange("t", "made", "g", "Tell.", "One. Two. " * 9, True)]
    told, kept = gate(judge_of(lambda a, b: "A"), obvious(short, 60, seed=3), list(KINDS))
    assert told["why"] == "no held-out story has 4 sentences to make obvious pairs of" and kept == []
