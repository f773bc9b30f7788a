"""Means and differences by opportunity, and variety at equal length."""

import pytest

from storyforge.core.records import Exchange
from storyforge.judge.scores import diversity, writers_scores
from storyforge.judge.texts import Text
from storyforge.principles.scores import Scored

WORDS = [f"word{number}" for number in range(400)]


def text(writer, prompt="p0", said="", sample=0, human=False):
    return Text(prompt, "g", f"Tell of {prompt}.", sample, 1, writer, said, 9, True, human)


def scored(score=None, **checks):
    """Checks as (score, opportunities)."""
    values, counts = ({name: pair[place] for name, pair in checks.items()} for place in (0, 1))
    return Scored(score, values, counts)


def test_a_check_counts_by_its_opportunities():
    texts = [text("a", "p0"), text("a", "p1")]
    found = writers_scores(texts, [scored(0.4, names=(1.0, 9)), scored(0.6, names=(0.0, 1))], [])
    assert found["writers"]["a"] == {"texts": 2, "score": 0.5, "checks": {"names": 0.9}}


def test_differences_are_paired_by_prompt_and_sample():
    texts = [text(writer, f"p{n}", sample=k) for writer in "ab" for n in range(4) for k in (0, 1)]
    gaps = [0.1, 0.2, 0.0, 0.3, 0.1, 0.1, 0.2, 0.2]
    levels = [0.1 * number for number in range(8)]
    scores = [scored(level + gap) for level, gap in zip(levels, gaps, strict=True)] + list(
        map(scored, levels)
    )
    gain = writers_scores(texts, scores, [("a", "b")])["differences"]["a-b"]["score"]
    assert gain["value"] == pytest.approx(sum(gaps) / 8) and gain["groups"] == 4
    assert 0 < gain["low"] < gain["value"] < gain["high"]  # levels that differ far more take no part


def test_a_check_differs_only_where_both_texts_had_an_opportunity():
    texts = [text("a", "p0"), text("a", "p1"), text("b", "p0"), text("b", "p1")]
    rows = [scored(1, names=(1, 1)), scored(1, names=(0.5, 3)), scored(1), scored(1, names=(0.25, 1))]
    found = writers_scores(texts, rows, [("a", "b"), ("b", "a")])["differences"]
    assert found["a-b"]["checks"]["names"] == {"value": 0.25, "low": None, "high": None, "groups": 1}
    assert found["b-a"]["checks"]["names"]["value"] == -0.25


def test_texts_without_any_check_have_no_score_and_no_difference():
    found = writers_scores([text("a"), text("b")], [scored(), scored()], [("a", "b")])
    assert found["writers"]["a"] == {"texts": 1, "score": None, "checks": {}}
    assert found["differences"]["a-b"]["score"]["value"] is None


def test_variety_is_measured_on_equally_many_words_and_shorter_texts_are_counted():
    varied, dull = " ".join(WORDS[:50]), "so it was " * 20
    texts = [
        text("a", "p0", varied),
        text("a", "p1", "too short"),
        text("b", "p0", dull),
        text("b", "p1", dull),
    ]
    found = diversity(texts, [], max_tokens=100, seed=1)
    assert found["words"] == 40 and found["human"] is None
    assert found["writers"]["a"] == {"left_out": 1, "distinct_2": 1, "self_bleu": None}
    assert found["writers"]["b"] == {
        "left_out": 0,
        "distinct_2": pytest.approx(3 / 39, abs=1e-6),
        "self_bleu": 1,
    }


def test_the_corpus_stands_beside_with_its_percentiles():
    stories = [
        Exchange(f"{n}", "made", "g", "Tell.", " ".join(WORDS[n : n + 60]), True) for n in range(0, 300, 5)
    ]
    texts = [text("a", f"p{n}", story.story) for n, story in enumerate(stories[:6])]
    found = diversity([*texts, text("human", said="so", human=True)], stories, max_tokens=100, seed=1)
    assert list(found["writers"]) == ["a"]
    assert found["human"]["distinct_2"] == {"p5": 1, "p95": 1}
    assert 0 < found["human"]["self_bleu"]["p5"] < found["human"]["self_bleu"]["p95"] < 1
    assert diversity(texts, stories[::-1], max_tokens=100, seed=1) == found
