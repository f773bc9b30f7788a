"""Copies, prompts that belong together, and wanted numbers: decided on the whole, whatever the order."""

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.choice import rank
from storyforge.preprocess.corpus import Card, CorpusParams, settle
from storyforge.preprocess.duplicates import fingerprint, shingles, signature
from storyforge.preprocess.split import SplitParams, side

PARAMS = CorpusParams(shingle_words=5, min_jaccard=0.7, max_stories_a_prompt=2)
SPLIT = SplitParams(salt=1, val=0.3, test=0.2, held_out={})
PROMPTS = [
    "the keeper counts every ship that comes home in the night until one does not",
    "the keeper counts every ship that comes home in the night until one does again",
    "a clock that strikes thirteen wakes the whole street and nobody says a word",
    "your cat writes letters to the mayor and today the mayor has written back",
    "the last train leaves at noon and you hold the only ticket in the town",
]


def card(number: int, text: str = "", prompt: str | None = None, **known) -> Card:
    words = (
        text or f"story number {number} " + " ".join(random.Random(number).choices("abcdefghij", k=60))
    ).split()
    new = Card(
        id=f"id{number}",
        source="prompts",
        group=f"group {prompt}" if prompt else f"group {number}",
        words=len(words),
        ended=True,
        stripped_characters=0,
        fingerprint=fingerprint(words),
        signature=signature(shingles(words, 5)),
        prompt_words=prompt,
    )
    TEXTS[new.id] = shingles(words, 5)
    return replace(new, **known)


TEXTS: dict[str, frozenset[str]] = {}


def settled(cards: list[Card], params: CorpusParams = PARAMS, wanted: int | None = None) -> dict[str, Card]:
    cards = [replace(card, reasons=dict(card.reasons)) for card in cards]
    settle(cards, params, SPLIT, {"prompts": wanted}, lambda number: TEXTS[cards[number].id])
    return {card.id: card for card in cards}


def held_out_and_trained() -> tuple[str, str]:
    """A group of test and one of train."""
    names = [f"group {n}" for n in range(100)]
    return tuple(next(name for name in names if side("prompts", name, SPLIT) == s) for s in ("test", "train"))


def test_of_exact_copies_the_held_out_one_stays():
    test, train = held_out_and_trained()
    found = settled([card(1, "the same words", group=train), card(2, "the same words", group=test)])
    assert found["id1"].reasons == {"copy": "of id2"}
    assert not found["id2"].reasons


def test_of_near_copies_one_stays_whatever_the_source():
    words = " ".join(random.Random(5).choices("abcdefghijkl", k=100))
    found = settled([card(1, words), card(2, words + " and so on", source="other"), card(3)])
    assert sorted(len(c.reasons) for c in found.values()) == [0, 0, 1]
    assert {rule for c in found.values() for rule in c.reasons} == {"near_copy"}


def test_what_is_rejected_already_displaces_nothing():
    found = settled([card(1, "the same words", reasons={"short": "…"}), card(2, "the same words")])
    assert not found["id2"].reasons


def test_groups_of_nearly_one_prompt_are_one_group():
    found = settled([card(n, prompt=prompt) for n, prompt in enumerate(PROMPTS)])
    staying = [c for c in found.values() if not c.reasons]
    assert {c.key for c in staying if c.id in ("id0", "id1")} == {min(f"group {p}" for p in PROMPTS[:2])}
    assert all(found[f"id{n}"].key == f"group {PROMPTS[n]}" for n in (2, 3, 4))


def test_a_cluster_on_two_sides_keeps_what_is_held_out():
    test, train = held_out_and_trained()
    found = settled([card(0, prompt=PROMPTS[0], group=train), card(1, prompt=PROMPTS[1], group=test)])
    assert list(found["id0"].reasons) == ["split_conflict"]
    assert (found["id1"].side, found["id1"].reasons) == ("test", {})


def test_a_prompt_keeps_so_many_stories_and_no_more():
    found = settled([card(n, prompt=PROMPTS[2]) for n in range(5)])
    kept = sorted((rank(c.id, SPLIT.salt), c.id) for c in found.values())[:2]
    assert {c.id for c in found.values() if not c.reasons} == {identity for _, identity in kept}


def test_so_many_as_wanted_are_kept_of_a_source():
    found = settled([card(n) for n in range(9)] + [card(9, source="other")], wanted=4)
    assert sum(not c.reasons for c in found.values()) == 5
    assert not found["id9"].reasons


pools = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(PROMPTS)), max_size=12, unique_by=lambda pair: pair[0]
)


@given(pools, pools, st.randoms(use_true_random=False))
def test_new_stories_never_move_an_old_one_and_order_never_matters(old, new, rng):
    cards = {number: card(number, prompt=prompt) for number, prompt in old}
    more = cards | {number: card(number, prompt=prompt) for number, prompt in new if number not in cards}
    before, shuffled = settled(list(cards.values())), list(more.values())
    rng.shuffle(shuffled)
    after, again = settled(list(more.values())), settled(shuffled)
    assert after == again
    for identity, known in before.items():
        assert known.side == after[identity].side


@given(pools)
def test_no_cluster_stands_on_two_sides(pool):
    found = settled([card(number, prompt=prompt) for number, prompt in pool], PARAMS)
    staying = [c for c in found.values() if not c.reasons]
    assert len({(c.key, c.side) for c in staying}) == len({c.key for c in staying})
