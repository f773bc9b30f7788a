"""Which stories are taken depends on what they are, never on where they stand."""

from storyforge.core.choice import HIGHEST_RANK, rank

RANKS = [rank(f"story {number}", seed=1) for number in range(500)]


def test_seed_decides_and_ranks_repeat():
    assert rank("story 0", seed=1) == RANKS[0] != rank("story 0", seed=2)
    assert len(set(RANKS)) == 500


def test_a_rank_is_one_of_64_bits():
    assert HIGHEST_RANK // 2 < max(RANKS) <= HIGHEST_RANK and min(RANKS) >= 0
