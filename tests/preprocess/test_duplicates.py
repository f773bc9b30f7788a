"""Copies are found by fingerprint, near copies by MinHash, and scikit-learn agrees."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from storyforge.preprocess.duplicates import clusters, fingerprint, jaccard, repeats, shingles, signature

WORDS = [f"w{n}" for n in range(400)]


def changed(words: list[str], share: float, rng: random.Random) -> list[str]:
    """The same text with runs of its words replaced."""
    new = list(words)
    for start in range(0, int(len(words) * share)):
        new[len(words) - 1 - start] = f"x{rng.random()}"
    return new


def texts(seed: int) -> list[list[str]]:
    rng = random.Random(seed)
    found = []
    for _ in range(12):
        words = rng.choices(WORDS, k=rng.randint(60, 200))
        found += [words] + [changed(words, rng.choice([0.0, 0.02, 0.1, 0.3, 0.6]), rng) for _ in range(3)]
    rng.shuffle(found)
    return found


def similarities(found: list[list[str]]) -> np.ndarray:
    """Jaccard similarity of every pair, by scikit-learn's counting."""
    vectorizer = CountVectorizer(
        analyzer=lambda words: [tuple(words[i : i + 5]) for i in range(len(words) - 4)], binary=True
    )
    table = vectorizer.fit_transform(found).astype(int)
    common = (table @ table.T).toarray()
    sizes = common.diagonal()
    return common / (sizes[:, None] + sizes[None, :] - common)


def found_repeats(found: list[list[str]], order: list[int]) -> dict[int, int]:
    grams = [shingles(words, 5) for words in found]
    signatures = list(map(signature, grams))
    return repeats(signatures, order, lambda a, b: jaccard(grams[a], grams[b]) >= 0.7)


def test_case_spaces_and_punctuation_make_no_other_story():
    assert fingerprint(["don't", "go"]) == fingerprint(["dont", "go"]) == fingerprint(["do", "ntgo"])
    assert fingerprint(["don't", "go"]) != fingerprint(["do", "go"])


def test_a_short_text_is_one_shingle():
    assert shingles(["a", "b"], 5) == {"a b"}
    assert shingles(["a", "b", "c"], 2) == {"a b", "b c"}


def test_the_order_of_shingles_does_not_change_a_signature():
    assert signature(["a", "b", "c"]) == signature(["c", "a", "b"])


@pytest.mark.parametrize("seed", range(5))
def test_scikit_learn_finds_no_near_copy_among_those_that_stay(seed):
    found = texts(seed)
    similar = similarities(found)
    repeated = found_repeats(found, list(range(len(found))))
    staying = [n for n in range(len(found)) if n not in repeated]
    assert repeated
    assert all(similar[a, b] < 0.7 for a in staying for b in staying if a != b)
    assert all(similar[copy, original] >= 0.7 for copy, original in repeated.items())


def test_who_stays_is_decided_by_the_order_given():
    found = [texts(1)[0]] * 3
    assert found_repeats(found, [2, 0, 1]) == {0: 2, 1: 2}


def test_a_chain_of_likenesses_is_one_cluster():
    rng = random.Random(0)
    first = rng.choices(WORDS, k=100)
    second = changed(first, 0.12, rng)
    third = changed(second[::-1], 0.12, rng)[::-1]
    other = rng.choices(WORDS, k=100)
    grams = [shingles(words, 3) for words in (other, third, first, second)]
    assert jaccard(grams[1], grams[2]) < 0.7
    signatures = list(map(signature, grams))
    assert clusters(signatures, lambda a, b: jaccard(grams[a], grams[b]) >= 0.7) == [0, 1, 1, 1]


def test_nothing_has_no_copies():
    assert repeats([], [], lambda a, b: True) == {}
    assert clusters([], lambda a, b: True) == []


@given(st.lists(st.sampled_from(["a b c", "a b d", "x y", ""]), max_size=20))
def test_exactly_one_of_equal_texts_stays(found):
    signatures = [signature(shingles(text.split(), 5)) for text in found]
    repeated = repeats(signatures, range(len(found)), lambda a, b: found[a] == found[b])
    assert len(found) - len(repeated) == len(set(found))
