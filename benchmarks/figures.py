"""Pure functions of the benchmark: what a token costs, and tables."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any


def products(config: Mapping[str, Any]) -> int:
    """Parameters of a Llama that multiply every token: the blocks' linear layers and the head."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    head = config.get("head_dim") or width // heads
    attention = 2 * width * heads * head + 2 * width * config["num_key_value_heads"] * head
    blocks = config["num_hidden_layers"] * (attention + 3 * width * config["intermediate_size"])
    return blocks + config["vocab_size"] * width


def flops_a_token(config: Mapping[str, Any], lengths: Sequence[int]) -> float:
    """Floating-point operations of LoRA training, a token of stories of these lengths.

    4 for each parameter that multiplies: 2 forward, 2 for the input's gradient, none for frozen weights.
    Attention adds 12 for each channel and each pair of a token and one it sees: two products forward and
    four backward, of 2 operations each. The adapter's own products are not counted.
    """
    heads = config["num_attention_heads"]
    channels = heads * (config.get("head_dim") or config["hidden_size"] // heads)
    pairs = sum(length * (length + 1) // 2 for length in lengths)
    return 4 * products(config) + 12 * config["num_hidden_layers"] * channels * pairs / sum(lengths)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median and least of some repeats, as `1.52 (least 1.47)`."""
    return f"{median(values):.{digits}f} (least {min(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown with columns aligned, so that a terminal shows it as well; the first to the left."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])])
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])
