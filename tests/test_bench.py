"""The arithmetic of benchmarks/: what a token costs, and tables."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def figures():
    file = Path(__file__).parents[1] / "benchmarks" / "figures.py"
    spec = importlib.util.spec_from_file_location("figures", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TINY = {
    "hidden_size": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "num_hidden_layers": 3,
    "vocab_size": 100,
}


def test_products_are_the_linear_layers_and_the_head(figures):
    # A block: q and o 8 × 8, k and v 8 × 2, gate, up and down 8 × 16. Then the head. No norms, no embedding.
    assert figures.products(TINY) == 3 * (2 * 64 + 2 * 16 + 3 * 128) + 800


def test_heads_may_be_wider_than_their_share_of_the_model(figures):
    assert figures.products({**TINY, "head_dim": 4}) == 3 * (2 * 128 + 2 * 32 + 3 * 128) + 800


def test_a_single_token_attends_to_itself_alone(figures):
    assert figures.flops_a_token(TINY, [1]) == 4 * figures.products(TINY) + 12 * 3 * 8


def test_attention_costs_by_the_pairs_that_see_each_other(figures):
    # Stories of 1 and 3 tokens have 1 + 6 pairs, over 4 tokens.
    attention = figures.flops_a_token(TINY, [1, 3]) - 4 * figures.products(TINY)
    assert attention == 12 * 3 * 8 * 7 / 4


def test_spread_is_the_median_and_the_least(figures):
    assert figures.spread([3.0, 1.0, 2.5]) == "2.50 (least 1.00)"


def test_columns_of_a_table_line_up(figures):
    assert figures.table(["", "rate"], [["ours", "7"], ["a peer", "11.5"]]).splitlines() == [
        "|        | rate |",
        "|--------|-----:|",
        "| ours   |    7 |",
        "| a peer | 11.5 |",
    ]
