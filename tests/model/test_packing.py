import random
from itertools import combinations

import pytest

from storyforge.model.packing import PASS, cuts


def tokens(lengths, sizes):
    """What goes through the model, padding and all."""
    total, start = 0, 0
    for size in sizes:
        total += size * lengths[start]
        start += size
    return total


def greedy(lengths, most):
    sizes, longest = [], None
    for length in lengths:
        if sizes and (sizes[-1] + 1) * longest <= most:
            sizes[-1] += 1
        else:
            sizes.append(1)
            longest = length
    return sizes


def headline(seed):
    """Lengths of one step of the headline run: of 16 stories some ten long ones and six of about 250 tokens.

    In the manner of WritingPrompts (about 900 tokens, a long tail, at most 2,048) and TinyStories.
    """
    chance = random.Random(seed)
    long = (round(chance.lognormvariate(6.6, 0.6)) for _ in range(16))
    short = (round(chance.gauss(260, 50)) for _ in range(16))
    mixed = (a if chance.random() < 0.6 else max(b, 90) for a, b in zip(long, short, strict=True))
    return sorted((min(max(length, 120), 2048) for length in mixed), reverse=True)


def cost(lengths, sizes):
    return tokens(lengths, sizes) + PASS * len(sizes)


def padding(cut, most):
    """Its share of what goes through the model, and how many passes a step takes."""
    steps = [headline(seed) for seed in range(200)]
    sizes = [cut(lengths, most) for lengths in steps]
    through = sum(tokens(lengths, each) for lengths, each in zip(steps, sizes, strict=True))
    return 1 - sum(map(sum, steps)) / through, sum(map(len, sizes)) / len(steps)


def test_no_other_cut_costs_less():
    """By comparing with all cuts of a short batch."""
    for seed in range(40):
        lengths, most = headline(seed)[:8], 2048
        every = [
            [b - a for a, b in zip((0, *at), (*at, 8), strict=True)]
            for count in range(8)
            for at in combinations(range(1, 8), count)
        ]
        allowed = [
            sizes
            for sizes in every
            if all(
                size == 1 or size * lengths[sum(sizes[:place])] <= most for place, size in enumerate(sizes)
            )
        ]
        assert cost(lengths, cuts(lengths, most)) == min(cost(lengths, sizes) for sizes in allowed)


@pytest.mark.parametrize("most", [1, 600, 2048, 4096, 8192])
def test_every_row_is_there_once_and_the_budget_is_kept(most):
    for seed in range(20):
        lengths, start = headline(seed), 0
        for size in cuts(lengths, most):
            assert size == 1 or size * lengths[start] <= most
            start += size
        assert start == len(lengths)


def test_of_equal_rows_as_many_as_fit_go_together():
    assert cuts([100] * 7, 300) == [3, 3, 1]
    assert cuts([], 300) == []


@pytest.mark.parametrize(("most", "share"), [(2048, 0.05), (4096, 0.07), (8192, 0.07)])
def test_the_headline_run_pads_far_less_than_by_filling_each_micro_batch(most, share):
    """Filled to the last they hold 7, 18 and 34 % of padding; a step takes some more passes instead."""
    (ours, passes), (filled, fewest) = padding(cuts, most), padding(greedy, most)
    assert ours < share < filled and ours < 0.6 * filled
    assert passes < fewest + 3.5


def test_a_pass_is_not_spent_on_little_padding():
    assert cuts([300, 290, 280], 4096) == [3]
    assert cuts([2000, 300, 290, 280], 16384) == [1, 3]
