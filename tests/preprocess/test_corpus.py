"""Copies, prompts that belong together, and wanted numbers: decided on the whole, whatever the order.

scikit-learn agrees on what is a near copy.
"""

import random
from dataclasses import replace

import numpy as np
import pytest
from definition import settle
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from storyforge.core.choice import rank
from storyforge.core.words import jaccard, shingles
from storyforge.preprocess.corpus import (
    Bands,
    Candidate,
    CorpusParams,
    clusters,
    fingerprint,
    repeats,
    signature,
)
from storyforge.preprocess.overlap import sketch

BANDS = Bands(32, 4)
PARAMS = CorpusParams(shingle_words=5, min_jaccard=0.7, bands=BANDS, max_stories_a_prompt=2)
SALT = 1
PROMPTS = [
    "the keeper counts every ship that comes home in the night until one does not",
    "the keeper counts every ship that comes home in the night until one does again",
    "a clock that strikes thirteen wakes the whole street and nobody says a word",
    "your cat writes letters to the mayor and today the mayor has written back",
    "the last train leaves at noon and you hold the only ticket in the town",
]


def draft(number: int, text: str = "", prompt: str | None = None, **known) -> Candidate:
    words = (
        text or f"story number {number} " + " ".join(random.Random(number).choices("abcdefghij", k=60))
    ).split()
    new = Candidate(
        id=f"id{number}",
        source="prompts",
        group=f"group {prompt}" if prompt else f"group {number}",
        words=len(words),
        ended=True,
        stripped_characters=0,
        fingerprint=fingerprint(words),
        prompt_words=prompt,
    )
    TEXTS[new.id] = shingles(words, 5)
    return replace(new, **known)


TEXTS: dict[str, frozenset[str]] = {}


def side(group: str) -> str:
    """By hash alone, as `sides` has it where groups are many."""
    place = rank(group, SALT) / 2**64
    return "test" if place < 0.2 else "val" if place < 0.5 else "train"


def settled(
    drafts: list[Candidate], params: CorpusParams = PARAMS, wanted: int | None = None
) -> dict[str, Candidate]:
    drafts = [
        replace(draft, side=side(draft.group), work=draft.group, reasons=dict(draft.reasons))
        for draft in drafts
    ]
    texts = [TEXTS[draft.id] for draft in drafts]
    settle(drafts, params, SALT, {"prompts": wanted}, texts.__getitem__, list(map(sketch, texts)))
    return {draft.id: draft for draft in drafts}


def held_out_and_trained() -> tuple[str, str]:
    """A group of test and one of train."""
    names = [f"group {n}" for n in range(100)]
    return tuple(next(name for name in names if side(name) == s) for s in ("test", "train"))


def test_of_exact_copies_the_held_out_one_stays():
    test, train = held_out_and_trained()
    found = settled([draft(1, "the same words", group=train), draft(2, "the same words", group=test)])
    assert found["id1"].reasons == {"copy": "of id2"}
    assert not found["id2"].reasons


def test_of_near_copies_one_stays_whatever_the_source():
    words = " ".join(random.Random(5).choices("abcdefghijkl", k=100))
    found = settled([draft(1, words), draft(2, words + " and so on", source="other"), draft(3)])
    assert sorted(len(c.reasons) for c in found.values()) == [0, 0, 1]
    assert {rule for c in found.values() for rule in c.reasons} == {"near_copy"}


def test_what_is_rejected_already_displaces_nothing():
    found = settled([draft(1, "the same words", reasons={"short": "…"}), draft(2, "the same words")])
    assert not found["id2"].reasons


def test_groups_of_nearly_one_prompt_are_one_group():
    found = settled([draft(n, prompt=prompt) for n, prompt in enumerate(PROMPTS)])
    staying = [c for c in found.values() if not c.reasons]
    assert {c.cluster for c in staying if c.id in ("id0", "id1")} == {min(f"group {p}" for p in PROMPTS[:2])}
    assert all(found[f"id{n}"].cluster == f"group {PROMPTS[n]}" for n in (2, 3, 4))


def test_a_cluster_on_two_sides_keeps_what_is_held_out():
    test, train = held_out_and_trained()
    found = settled([draft(0, prompt=PROMPTS[0], group=train), draft(1, prompt=PROMPTS[1], group=test)])
    assert list(found["id0"].reasons) == ["split_conflict"]
    assert (found["id1"].side, found["id1"].reasons) == ("test", {})


def test_a_prompt_keeps_so_many_stories_and_no_more():
    found = settled([draft(n, prompt=PROMPTS[2]) for n in range(5)])
    kept = sorted((rank(c.id, SALT), c.id) for c in found.values())[:2]
    assert {c.id for c in found.values() if not c.reasons} == {identity for _, identity in kept}


def test_so_many_as_wanted_are_kept_of_a_source():
    found = settled([draft(n) for n in range(9)] + [draft(9, source="other")], wanted=4)
    assert sum(not c.reasons for c in found.values()) == 5
    assert not found["id9"].reasons


pools = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(PROMPTS)), max_size=12, unique_by=lambda pair: pair[0]
)


@given(pools, pools, st.randoms(use_true_random=False))
def test_new_stories_never_move_an_old_one_and_order_never_matters(old, new, rng):
    drafts = {number: draft(number, prompt=prompt) for number, prompt in old}
    more = drafts | {number: draft(number, prompt=prompt) for number, prompt in new if number not in drafts}
    before, shuffled = settled(list(drafts.values())), list(more.values())
    rng.shuffle(shuffled)
    after, again = settled(list(more.values())), settled(shuffled)
    assert after == again
    for identity, known in before.items():
        assert known.side == after[identity].side


@given(pools)
def test_no_cluster_stands_on_two_sides(pool):
    found = settled([draft(number, prompt=prompt) for number, prompt in pool], PARAMS)
    staying = [c for c in found.values() if not c.reasons]
    assert len({(c.cluster, c.side) for c in staying}) == len({c.cluster for c in staying})


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


def found_repeats(found: list[list[str]], bands: Bands = BANDS) -> dict[int, int]:
    grams = [shingles(words, 5) for words in found]
    signatures = [signature(each, bands) for each in grams]
    return repeats(signatures, lambda a, b: jaccard(grams[a], grams[b]) >= 0.7, bands)


def test_case_spaces_and_punctuation_make_no_other_story():
    assert fingerprint(["don't", "go"]) == fingerprint(["dont", "go"]) == fingerprint(["do", "ntgo"])
    assert fingerprint(["don't", "go"]) != fingerprint(["do", "go"])


def test_the_order_of_shingles_does_not_change_a_signature():
    assert signature(["a", "b", "c"], BANDS).digest() == signature(["c", "a", "b"], BANDS).digest()


def test_bands_find_as_many_pairs_as_they_promise_and_let_few_strangers_meet():
    """Counted on numbers drawn as MinHash draws them: two texts share each with their similarity's chance."""
    rng = np.random.default_rng(1)
    for bands in (BANDS, Bands(25, 5)):
        for similarity in (0.3, 0.5, 0.7):
            shared = rng.random((20_000, *bands)) < similarity
            met = shared.all(axis=2).any(axis=1).mean()
            assert met == pytest.approx(bands.found(similarity), abs=0.015)
    assert BANDS.found(0.7) > 0.999 and Bands(25, 5).found(0.7) > 0.985
    assert BANDS.found(0.02) > 30 * Bands(25, 5).found(0.02)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bands", [BANDS, Bands(25, 5)], ids=str)
def test_scikit_learn_finds_no_near_copy_among_those_that_stay(seed, bands):
    found = texts(seed)
    similar = similarities(found)
    repeated = found_repeats(found, bands)
    staying = [n for n in range(len(found)) if n not in repeated]
    assert repeated
    assert all(similar[a, b] < 0.7 for a in staying for b in staying if a != b)
    assert all(similar[copy, original] >= 0.7 for copy, original in repeated.items())


def test_of_equal_texts_the_first_stays():
    assert found_repeats([texts(1)[0]] * 3) == {1: 0, 2: 0}


def test_a_chain_of_likenesses_is_one_cluster():
    rng = random.Random(0)
    first = rng.choices(WORDS, k=100)
    second = changed(first, 0.12, rng)
    third = changed(second[::-1], 0.12, rng)[::-1]
    other = rng.choices(WORDS, k=100)
    grams = [shingles(words, 3) for words in (other, third, first, second)]
    assert jaccard(grams[1], grams[2]) < 0.7
    signatures = [signature(each, BANDS) for each in grams]
    assert clusters(signatures, lambda a, b: jaccard(grams[a], grams[b]) >= 0.7, BANDS) == [0, 1, 1, 1]


def test_nothing_has_no_copies():
    assert repeats([], lambda a, b: True, BANDS) == {}
    assert clusters([], lambda a, b: True, BANDS) == []


@given(st.lists(st.sampled_from(["a b c", "a b d", "x y", ""]), max_size=20))
def test_exactly_one_of_equal_texts_stays(found):
    signatures = [signature(shingles(text.split(), 5), BANDS) for text in found]
    repeated = repeats(signatures, lambda a, b: found[a] == found[b], BANDS)
    assert len(found) - len(repeated) == len(set(found))
