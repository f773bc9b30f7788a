import math

import pytest

from storyforge.evaluate.losses import Scored, comparison, improvement, per_token
from storyforge.measures.intervals import difference


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
    assert improvement(scored)["nats_per_token"] == pytest.approx(35 / 40)


def test_groups_not_stories_are_left_out():
    """Three groups saving 1, 2 and 3 nats a token: mean 2, standard error 1 / sqrt(3), t of 2 degrees 4.3027.

    From the 300 stories singly the interval would be about ±0.09.
    """
    scored = [story(n, "abc"[n % 3], 10, 40.0, 40.0 - 10 * (n % 3 + 1)) for n in range(300)]
    found = improvement(scored)
    assert found["nats_per_token"] == 2.0 and found["groups"] == 3
    assert found["high"] - 2 == pytest.approx(4.302653 / math.sqrt(3), abs=1e-5)
    assert 2 - found["low"] == pytest.approx(found["high"] - 2, abs=2e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_fewer_than_three_groups_give_no_interval(groups):
    scored = [story(n, f"g{n % groups}", 10, 20.0, 10.0) for n in range(6)]
    expected = {"nats_per_token": 1.0, "low": None, "high": None, "groups": groups}
    assert comparison(scored)["improvement"] == expected


def test_of_no_stories_all_is_none():
    found = comparison([])
    assert found["improvement"] == {"nats_per_token": None, "low": None, "high": None, "groups": 0}
    assert set(found["tuned"].values()) == {None}


def test_the_interval_does_not_depend_on_the_order_of_stories():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n, 15.0) for n in range(20)]
    assert comparison(scored) == comparison(scored[::-1])


def test_numbers_are_short_enough_to_read_in_a_diff():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n / 3, 15.0) for n in range(20)]
    for part in comparison(scored).values():
        assert all(value == round(value, 6) for value in part.values())


def test_the_improvement_is_the_difference_of_the_losses():
    scored = [story(n, f"g{n % 5}", 10 + n, 20.0 + n, 15.0) for n in range(20)]
    found = difference([(s.group, s.base - s.tuned, s.tokens) for s in scored])
    assert improvement(scored) == {"nats_per_token": found.pop("value"), **found}
