"""How varied a text is, counted here by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.words import grams
from storyforge.evaluate.diversity import distance, distinct, gzip_ratio, longest_repeat, looping, self_bleu

WORDS = st.lists(st.sampled_from("abc"), min_size=1, max_size=40)


def test_distinct_is_the_share_of_grams_that_differ():
    """a b, b a, a b, b c: three of four differ."""
    assert distinct("a b a b c".split(), 2) == 0.75
    assert distinct("a b a b c".split(), 1) == 0.6


def test_the_longest_repeat_may_overlap_itself():
    assert longest_repeat("x a b c y a b c z".split()) == 3
    assert longest_repeat("a a a a".split()) == 3
    assert longest_repeat("a b c".split()) == 0


@given(WORDS)
def test_the_longest_repeat_is_what_trying_every_length_finds(words):
    repeated = [n for n in range(1, len(words)) if len(set(grams(words, n))) < len(words) - n + 1]
    assert longest_repeat(words) == max(repeated, default=0)


@pytest.mark.parametrize(
    "text",
    [
        "he said " + "I do not know and " * 3,
        "no " * 12,
        "it began well " + "round and round we go " * 5 + "and then it ended",
    ],
)
def test_a_loop_is_found_wherever_it_stands(text):
    assert looping(text.split())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "never never never never never",
        "no " * 11,
        "I do not know and " * 2 + "so it goes",
        "the rain fell and the wind blew and the rain fell and the sea rose and the wind fell",
    ],
)
def test_rhetoric_is_no_loop(text):
    assert not looping(text.split())


def looping_by_the_book(words):
    """Three periods or more, the last one perhaps not whole, and twelve words."""
    return any(
        all(words[n] == words[n + period] for n in range(start, start + length - period))
        for period in range(1, len(words) // 3 + 1)
        for length in [max(3 * period, 12)]
        for start in range(len(words) - length + 1)
    )


@given(
    st.lists(st.sampled_from("ab"), max_size=8),
    st.lists(st.sampled_from("ab"), max_size=6),
    st.integers(1, 8),
)
def test_a_loop_is_what_comes_three_times_in_a_row(around, period, times):
    words = around + period * times + around
    assert looping(words) == looping_by_the_book(words)


def test_texts_that_say_the_same_compress_better():
    same = gzip_ratio(["The rain fell on the old town for a year."] * 4)
    other = gzip_ratio(
        ["The rain fell on the old town for a year.", "Nobody came.", "Ink dried.", "We left."]
    )
    assert same > 2 > other


def test_self_bleu_of_the_same_texts_is_one_and_of_strangers_nearly_none():
    assert self_bleu(["a b c d e".split()] * 3) == pytest.approx(1)
    assert self_bleu(["a b c d e".split(), "f g h i j".split()]) < 0.05


def test_self_bleu_by_hand():
    """Each of two texts shares 4 of 5 words, 3 of 4 pairs, 2 of 3 triples and 1 of 2 runs of four."""
    found = self_bleu(["a b c d e".split(), "a b c d f".split()])
    assert found == pytest.approx((4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)


def test_a_word_counts_as_often_as_one_other_text_has_it():
    """BLEU's clipping: "a a a a" has four, the others at most two, and no run of more than two."""
    twice, thrice = "a a b c".split(), "a b d e".split()
    found = self_bleu(["a a a a".split(), twice, thrice])
    alone = [
        (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1) ** 0.25,  # two of four words, one of three pairs, nothing longer
        (3 / 4 * 2 / 3 * 0.1 / 2 * 0.1) ** 0.25,  # a a b; "a a" and "a b"
        (2 / 4 * 1 / 3 * 0.1 / 2 * 0.1) ** 0.25,  # a b; "a b"
    ]
    assert found == pytest.approx(sum(alone) / 3)


def test_distance_is_the_share_of_pairs_of_words_not_shared():
    """a b, b c against a b, b d: one of three is shared."""
    assert distance(["a b c".split(), "a b d".split()]) == pytest.approx(2 / 3)
    assert distance(["a b c".split()] * 2) == 0
    assert distance(["a b".split(), "a b".split(), "c d".split()]) == pytest.approx(2 / 3)
