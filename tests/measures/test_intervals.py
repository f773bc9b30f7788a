import math

import numpy as np
import pytest

from storyforge.measures.intervals import difference


def coverage(groups, weigh, draw, times=2000, noise=0.3):
    """How often 0.4 lies in the interval: groups differ by 0.05 nats, and tokens add noise of their own."""
    rng, held = np.random.default_rng(groups), 0
    for _ in range(times):
        tokens = weigh(rng, groups)
        saved = (0.4 + 0.05 * draw(rng, groups)) * tokens
        saved += noise * np.sqrt(tokens) * rng.standard_normal(groups)
        found = difference((f"g{n:02}", saved[n], tokens[n]) for n in range(groups))
        held += found["low"] <= 0.4 <= found["high"]
    return held / times


def normal(rng, groups):
    return rng.standard_normal(groups)


def uniform(rng, groups):
    return math.sqrt(3) * rng.uniform(-1, 1, groups)


def skewed(rng, groups):
    return rng.exponential(1, groups) - 1


def equal(_, groups):
    return np.full(groups, 100.0)


def unequal(rng, groups):
    return rng.uniform(60, 140, groups)


def lopsided(rng, groups):
    """One in twenty is five times the middle one."""
    return 100 * np.exp(rng.standard_normal(groups))


@pytest.mark.parametrize("weigh", [equal, unequal])
@pytest.mark.parametrize("groups", [3, 6, 24, 64])
def test_the_interval_covers_the_truth_as_often_as_it_says(groups, weigh):
    assert 0.93 <= coverage(groups, weigh, normal) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize("groups", [3, 6, 24, 64])
def test_it_does_so_where_a_few_groups_hold_most_of_the_weight(groups, draw):
    """With groups - 1 degrees of freedom 91 % at 6; at 3 groups it is rather too wide."""
    assert 0.93 <= coverage(groups, lopsided, draw, 6000) <= (0.98 if groups == 3 else 0.97)


@pytest.mark.slow
@pytest.mark.parametrize("weigh", [equal, unequal])
@pytest.mark.parametrize(("groups", "measured"), [(3, 0.885), (6, 0.885), (24, 0.92), (64, 0.938)])
def test_skewed_effects_are_covered_less_often_as_the_docstring_says(groups, measured, weigh):
    """Without the noise of tokens, which makes them less skewed."""
    assert coverage(groups, weigh, skewed, 6000, noise=0) == pytest.approx(measured, abs=0.015)


def test_a_difference_is_a_mean_over_weights_not_over_groups():
    """Group a has three samples 1 apart in all, group b one sample 3 apart: 4 over 4."""
    found = difference([("a", 0.0, 2), ("a", 1.0, 1), ("b", 3.0, 1)])
    assert (found["value"], found["low"], found["groups"]) == (1.0, None, 2)
