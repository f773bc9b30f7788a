"""Micro-batches: every item once, within the budget; full for the engine, elsewhere as cheap as can be."""

import random
from itertools import combinations

import pytest

from storyforge.model import cuts
from storyforge.model.cuts import OVERHEAD, cheapest, fullest, item_batches, micro_batches
from storyforge.model.encoding import Encoded, longest, singly


def item(number, *lengths):
    return tuple(Encoded(f"{number}-{n}", "made", "g", (1,) * n, 0, n, False) for n in lengths)


def by_length(items):
    return sorted(items, key=lambda one: (-longest(one), one[0].id))


def cost(found):
    return sum(sum(map(len, cut)) * max(map(longest, cut)) + OVERHEAD for cut in found)


def allowed(found, budget):
    return all(len(cut) == 1 or sum(map(len, cut)) * max(map(longest, cut)) <= budget for cut in found)


def every_cut(ordered):
    for number in range(len(ordered)):
        for ends in combinations(range(1, len(ordered)), number):
            yield [ordered[a:b] for a, b in zip((0, *ends), (*ends, len(ordered)), strict=True)]


def every_partition(items):
    """In whatever order: Bell's number of them."""
    if not items:
        yield []
        return
    for rest in every_partition(items[1:]):
        yield [[items[0]], *rest]
        for at, cut in enumerate(rest):
            yield [*rest[:at], [items[0], *cut], *rest[at + 1 :]]


@pytest.mark.parametrize("seed", range(40))
def test_no_other_cuts_of_the_sorted_items_are_cheaper(seed):
    rng = random.Random(seed)
    items = by_length(
        item(number, *(rng.randint(1, 900) for _ in range(rng.choice((1, 1, 2)))))
        for number in range(rng.randint(1, 9))
    )
    budget = rng.choice((300, 1000, 2048, 4096, 10**6))
    found = cheapest(items, budget)
    assert [one for cut in found for one in cut] == items and allowed(found, budget)
    assert cost(found) == min(cost(other) for other in every_cut(items) if allowed(other, budget))


@pytest.mark.parametrize("seed", range(8))
def test_of_single_rows_no_other_partition_at_all_is_cheaper(seed):
    rng = random.Random(seed)
    items = by_length(item(number, rng.randint(1, 900)) for number in range(7))
    best = min(cost(other) for other in every_partition(items) if allowed(other, 2048))
    assert cost(cheapest(items, 2048)) == best


def test_padding_is_weighed_against_a_micro_batch_more():
    """The short row is padded by what the next cut would cost, or by one token more."""
    long, near, far = item(1, 600), item(2, 600 - OVERHEAD + 1), item(3, 600 - OVERHEAD - 1)
    assert cheapest([long, near], 4096) == [[long, near]]
    assert cheapest([long, far], 4096) == [[long], [far]]
    assert fullest([long, far], 4096) == [[long, far]]


def test_of_stories_as_long_as_the_headlines_little_is_padding():
    """A step of 16, lengths drawn about as benchmarks/gpu.py fits them to the corpora."""
    rng, padded, real = random.Random(4), {cheapest: 0, fullest: 0}, 0
    for _ in range(200):
        drawn = (rng.choices(((640, 0.68), (205, 0.36)), (0.6, 0.4))[0] for _ in range(16))
        lengths = [60 + min(round(middle * rng.lognormvariate(0, spread)), 1988) for middle, spread in drawn]
        items, real = by_length(item(n, length) for n, length in enumerate(lengths)), real + sum(lengths)
        for way in padded:
            padded[way] += sum(len(cut) * longest(cut[0]) for cut in way(items, 4096))
    assert padded[cheapest] < 1.08 * real and padded[fullest] > 1.18 * real


def test_thousands_of_rows_are_cut_at_once(monkeypatch):
    """A row is looked at with those that fit behind it and with no others."""
    looked = []
    monkeypatch.setattr(cuts, "longest", lambda one: looked.append(one) or longest(one))
    many = by_length(item(number, 20 + number % 300) for number in range(5000))
    assert allowed(cheapest(many, 4096), 4096) and len(looked) == len(many)


@pytest.mark.parametrize("way", [cheapest, fullest])
def test_a_cut_may_fill_the_budget_to_its_last_token(way):
    items = [item(number, 1000) for number in range(4)]
    assert len(way(items, 4000)) == 1 and len(way(items, 3999)) == 2


@pytest.mark.parametrize("way", [cheapest, fullest])
def test_an_item_over_the_budget_goes_alone_and_nothing_gives_nothing(way):
    items = by_length(item(number, 100 + number) for number in range(5))
    assert way(items, 1) == [[one] for one in items]
    assert way([], 100) == []


def test_what_is_cut_depends_on_the_items_and_not_on_their_order(base, encoded):
    found = micro_batches(base, encoded, 300)
    assert sorted(row.id for cut in found for row in cut) == sorted(row.id for row in encoded)
    assert found == micro_batches(base, encoded[::-1], 300) and len(found) > 1
    assert [len(cut[0].ids) for cut in found] == sorted((len(cut[0].ids) for cut in found), reverse=True)


@pytest.mark.parametrize(("engine", "way"), [(None, cheapest), (object(), fullest)])
def test_only_where_rows_are_padded_are_cuts_weighed(base, encoded, monkeypatch, engine, way):
    monkeypatch.setattr(cuts, "fused", lambda model: engine)
    items = singly(encoded)
    assert cheapest(by_length(items), 700) != fullest(by_length(items), 700)
    assert item_batches(base, items, 700) == way(by_length(items), 700)
