"""Items cut into micro-batches: what goes through the model at once, within a budget of tokens."""

import math
from collections.abc import Iterable, Sequence

from storyforge.engine.llama import fused
from storyforge.model.encoding import Encoded, Item, longest, singly

# About what a micro-batch costs besides its tokens, in tokens: each pass reads every weight once, and unpacks
# one of 4 bits. A card computes 150 to 295 tokens' products while it reads, and 190 to 370 with unpacking, by
# data sheets: 16-bit operations a second by bytes a second are A100 153, 4090 164, T4 203, H100 295.
OVERHEAD = 256


def micro_batches(model, rows: Iterable[Encoded], max_tokens: int) -> list[list[Encoded]]:
    """`item_batches` of rows that are items of their own."""
    return [[row for (row,) in cut] for cut in item_batches(model, singly(rows), max_tokens)]


def item_batches(model, items: Iterable[Item], max_tokens: int) -> list[list[Item]]:
    """Items by length, cut so that rows × longest stays within `max_tokens`; one that is larger goes alone.

    The longest come first: what does not fit into memory shows at once. The engine pads nothing, so its cuts
    are as full as they may be; elsewhere they are those that cost least.
    """
    ordered = sorted(items, key=lambda item: (-longest(item), item[0].id))
    return (fullest if fused(model) else cheapest)(ordered, max_tokens)


def fullest(ordered: Sequence[Item], max_tokens: int) -> list[list[Item]]:
    """Each cut takes what it holds before the next one begins."""
    cuts: list[list[Item]] = []
    rows = width = 0
    for item in ordered:
        if cuts and (rows + len(item)) * width <= max_tokens:
            cuts[-1].append(item)
            rows += len(item)
        else:
            cuts.append([item])
            rows, width = len(item), longest(item)
    return cuts


def cheapest(ordered: Sequence[Item], max_tokens: int) -> list[list[Item]]:
    """The cuts with the least sum of padded tokens and OVERHEAD, exactly: by dynamic programming.

    It looks at each item with each of those that fit behind it.
    """
    # The least cost of all from an item on, and where its own cut ends; beyond the last nothing is left.
    costs, ends = [math.inf] * len(ordered) + [0.0], [0] * len(ordered)
    for start in reversed(range(len(ordered))):
        rows, width = 0, longest(ordered[start])
        for end in range(start + 1, len(ordered) + 1):
            rows += len(ordered[end - 1])
            if rows * width > max_tokens and end > start + 1:
                break
            if (cost := rows * width + OVERHEAD + costs[end]) < costs[start]:
                costs[start], ends[start] = cost, end
    cuts, start = [], 0
    while start < len(ordered):
        cuts.append(list(ordered[start : ends[start]]))
        start = ends[start]
    return cuts
