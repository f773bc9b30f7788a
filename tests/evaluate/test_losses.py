import math

import pytest

from storyforge.evaluate.losses import Scored, comparison, difference, improvement, per_token


def story(n, group, tokens, base, tuned):
    return Scored(f"s{n}", "made", group, tokens, 4 * tokens, base, tuned)


def test_the_loss_weights_stories_by_their_tokens():
    scored = [story(0, "a", 10, 10.0, 5.0), story(1, "b", 30, 90.0, 60.0)]
    numbers = per_token(scored, "base")
    assert numbers["loss"] == pytest.approx(100 / 40)
    assert numbers["perplexity"] == pytest.approx(math.exp(2.5))
    assert numbers["bits_per_byte"] == pytest.approx(100 / math.log(2) / 160)


def test_improvement_is_the_saved_nats_a_token():
    scored = [story(0, "a", 10, 10.0, 5.0), story(1, "b", 30, 90.0, 60.0)]
    assert improvement(scored, seed=1)["nats_per_token"] == pytest.approx(35 / 40)


def test_groups_not_stories_are_drawn_again():
    """Two groups, one better and one worse by 1 nat a token: drawing groups can give either alone, so the
    interval is -1 to 1; drawing the 200 stories singly would give about ±0.14."""
    scored = [story(n, "ab"[n % 2], 10, 20.0, 10.0 if n % 2 else 30.0) for n in range(200)]
    found = improvement(scored, seed=1)
    assert (found["low"], found["high"]) == (-1.0, 1.0)
    assert found["groups"] == 2


def test_one_group_gives_no_interval():
    found = comparison([story(n, "a", 10, 20.0, 10.0) for n in range(5)], seed=1)["improvement"]
    assert found == {"nats_per_token": 1.0, "low": None, "high": None, "groups": 1}


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Forty groups with a true mean of 0.1: the 95 % interval should hold it in about 19 of 20 worlds."""
    import numpy as np

    rng, held = np.random.default_rng(5), 0
    for world in range(200):
        effects = rng.normal(0.1, 0.2, 40)
        scored = [story(n, f"g{n}", 100, 100 * (1 + effect), 100.0) for n, effect in enumerate(effects)]
        found = improvement(scored, seed=world, draws=500)
        held += found["low"] <= 0.1 <= found["high"]
    assert 0.88 <= held / 200 <= 0.99


def test_the_interval_does_not_depend_on_the_order_of_stories():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n, 15.0) for n in range(20)]
    assert comparison(scored, seed=2) == comparison(scored[::-1], seed=2)


def test_numbers_are_short_enough_to_read_in_a_diff():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n / 3, 15.0) for n in range(20)]
    for part in comparison(scored, seed=2).values():
        assert all(value == round(value, 6) for value in part.values())


def test_a_difference_is_a_mean_over_weights_not_over_groups():
    """Group a has three samples 1 apart in all, group b one sample 3 apart: 4 over 4."""
    found = difference([("a", 0.0, 2), ("a", 1.0, 1), ("b", 3.0, 1)], seed=1)
    assert (found["value"], found["low"], found["high"], found["groups"]) == (
        1.0,
        pytest.approx(1 / 3, abs=1e-6),
        3.0,
        2,
    )


def test_the_improvement_is_the_difference_of_the_losses():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n, 15.0) for n in range(20)]
    found = difference([(s.group, s.base - s.tuned, s.tokens) for s in scored], seed=2)
    assert improvement(scored, seed=2) == {"nats_per_token": found.pop("value"), **found}
