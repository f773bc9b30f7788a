from collections import Counter

from storyforge.core.words import grams, jaccard, opening, quantiles, shingles, words


def test_words_are_casefolded_and_keep_their_apostrophes():
    assert words("Don't STOP -- it’s 9 o'clock, 'Anna'_b.") == [
        "don't",
        "stop",
        "it’s",
        "9",
        "o'clock",
        "anna",
        "b",
    ]


def test_grams_are_every_run_of_words():
    assert grams(["a", "b", "c"], 2) == [("a", "b"), ("b", "c")]
    assert grams(["a", "b"], 3) == []


def test_a_short_text_is_one_shingle():
    assert shingles(["a", "b"], 5) == {"a b"}
    assert shingles(["a", "b", "c"], 2) == {"a b", "b c"}


def test_jaccard_is_the_share_of_what_either_has():
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 0


def test_an_opening_has_exactly_so_many_words_or_is_none():
    assert opening('"One, two!" Three.', 2) == '"One, two'
    assert opening("One, two.", 2) == "One, two"
    assert opening("One, two.", 3) is None


def test_quantiles_are_lengths_that_occur():
    lengths = Counter(range(1, 101))
    assert quantiles(lengths) == {
        "min": 1,
        "p5": 5,
        "p25": 25,
        "median": 50,
        "p75": 75,
        "p95": 95,
        "max": 100,
    }
    assert quantiles(Counter({7: 3})) == dict.fromkeys(quantiles(lengths), 7)
    assert quantiles(Counter()) == {}
