import pytest

from storyforge.principles.constitution import Principle
from storyforge.principles.scores import Scored, score

TEXTS = {"critique": "Why?", "revise": "Stop."}


def principle(check, weight=0.0, applies="any"):
    return Principle(id=check or "taste", kind="story", applies=applies, check=check, weight=weight, **TEXTS)


def test_the_score_is_the_mean_by_weight_and_guards_stand_beside_it(known):
    principles = [principle("no_meta", 3), principle("length", 1), principle("known_words"), principle(None)]
    found = score(principles, "In 40 words.", "rain " * 30, ended=True, corpus=known)
    assert found.checks == {"no_meta": 1, "length": 0.5, "known_words": 0}
    assert found.opportunities == {"no_meta": 1, "length": 1, "known_words": 30}
    assert found.score == pytest.approx((3 * 1 + 1 * 0.5) / 4)


def test_what_had_no_opportunity_or_was_not_asked_for_counts_nowhere(known):
    principles = [principle("no_meta", 1), principle("length", 5), principle("said_once", 5, "drama")]
    assert score(principles, "Tell.", "It rained.", ended=True, corpus=known) == Scored(
        1, {"no_meta": 1}, {"no_meta": 1}
    )


def test_guards_alone_are_no_score(known):
    assert score([principle("no_meta")], "Tell.", "Rain.", ended=True, corpus=known).score is None
    assert score([], "Tell.", "Rain.", ended=True, corpus=known) == Scored(None, {})
