"""Repetition is measured as in Gopher's table A1, counted here by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.preprocess.repetition import (
    LINES,
    SAID_BEFORE,
    lines_said_before,
    most_frequent,
    numbered,
    said_before,
)


def test_the_most_frequent_bigram_by_hand():
    """`ab cd` comes three times: 3 x 4 of 14 letters."""
    assert most_frequent(numbered("ab cd ab cd ab cd ef".split()))[2] == pytest.approx(12 / 14)


def test_what_comes_once_is_no_repetition():
    assert most_frequent(numbered("one two three four five".split())) == {2: 0.0, 3: 0.0, 4: 0.0}


def test_words_said_before_by_hand():
    """The second five-gram covers words 6 to 10 of 11: 10 of 22 letters."""
    words = "aa bb cc dd ee aa bb cc dd ee ff".split()
    assert said_before(numbered(words))[5] == pytest.approx(10 / 22)
    assert said_before(numbered(words))[6] == 0.0


def test_lines_said_before_leave_names_and_cries_out():
    lines = ["ANNA", "the rain came down again", "ANNA", "the rain came down again", "ANNA", "Oh no!"]
    assert lines_said_before(lines) == (0.5, 0.5)
    assert lines_said_before(["ANNA"] * 9) == (0.0, 0.0)
    assert LINES < 0.5


@given(st.lists(st.sampled_from("abcd"), max_size=60))
def test_the_short_cut_changes_no_verdict(words):
    """Counted without numbers and without stopping early."""
    shares = said_before(numbered(words))
    for n, bound in SAID_BEFORE.items():
        seen, covered = set(), set()
        for start in range(len(words) - n + 1):
            gram = tuple(words[start : start + n])
            covered |= set(range(start, start + n)) if gram in seen else set()
            seen.add(gram)
        share = len(covered) / max(1, len(words))
        assert (share > bound) == (shares[n] > bound)
