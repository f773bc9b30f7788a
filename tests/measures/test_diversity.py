"""How varied and how much copied a text is, counted here by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.words import grams
from storyforge.measures.diversity import copied_runs, copied_share, distinct, longest_repeat, self_bleu

COUNTING = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
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


def test_runs_that_the_training_text_has_are_found_whatever_their_dress():
    text = COUNTING.split()
    copied = copied_runs([text], ["Nothing here.", f"And so: {COUNTING.upper().replace(' ', ', ')}!"])
    assert copied_share(text, copied) == 1


def test_the_share_is_of_the_texts_own_runs():
    """Nine of its fourteen words stand there: two of its seven runs of eight."""
    copied = copied_runs([COUNTING.split()], ["one two three four five six seven eight nine and no more"])
    assert copied_share(COUNTING.split(), copied) == 2 / 7


def test_a_run_does_not_reach_across_stories():
    first, second = COUNTING[:30], COUNTING[30:]
    assert not copied_runs([COUNTING.split()], [first, second])


def test_seven_words_in_common_are_nothing():
    assert not copied_runs([COUNTING.split()], ["one two three four five six seven"])


def test_the_training_text_is_read_once_and_not_kept():
    stories = (
        f"story {number} of many, each as forgettable as the one before it was" for number in range(1000)
    )
    assert copied_runs([COUNTING.split()], stories) == frozenset()
    assert next(stories, None) is None
