"""Which stories are taken depends on what they are, never on where they stand."""

import random
import tracemalloc

import pytest

from storyforge.core.choice import HIGHEST_RANK, highest_wanted, rank

RANKS = [rank(f"story {number}", seed=1) for number in range(500)]


@pytest.mark.parametrize("wanted", [1, 7, 499, 500])
def test_as_many_are_taken_as_wanted(wanted):
    limit = highest_wanted(RANKS, wanted)
    assert sum(rank <= limit for rank in RANKS) == wanted


def test_fewer_than_wanted_are_all_taken():
    assert max(RANKS) <= highest_wanted(RANKS, 1000)
    assert highest_wanted([], 3) == HIGHEST_RANK


def test_order_and_duplicates_do_not_matter():
    shuffled = random.Random(0).sample(RANKS * 2, 1000)
    assert highest_wanted(shuffled, 20) == highest_wanted(RANKS, 20)


def test_seed_decides_and_ranks_repeat():
    assert rank("story 0", seed=1) == RANKS[0] != rank("story 0", seed=2)
    assert len(set(RANKS)) == 500


def test_memory_is_that_of_the_wanted_number():
    def peak(length):
        tracemalloc.start()
        highest_wanted((rank(str(number), 0) for number in range(length)), 100)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    assert peak(30_000) < 1.2 * peak(3_000)
