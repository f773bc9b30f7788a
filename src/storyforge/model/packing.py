"""Where to cut a batch that is sorted by length, so that it goes through the model with least work."""

from collections.abc import Sequence

# What a pass through the model costs beside its tokens, as tokens: launches, and reading every weight.
# At zero each row would go alone, which has no padding at all. Not measured on a GPU yet.
PASS = 256


def cuts(lengths: Sequence[int], max_tokens: int) -> list[int]:
    """How many rows each micro-batch takes of `lengths`, which go from the longest down.

    Rows × the longest stays within `max_tokens`, but for a row that is longer alone. Of all such cuts one
    that costs least: the tokens, padding counted, and PASS for each micro-batch; of equals the larger ones
    first. By dynamic programming over where the rest begins: time rows × the rows of a micro-batch.
    """
    rows = len(lengths)
    best = [(0, 0)] * (rows + 1)  # of the rows from there on: the cost, and minus the rows of the first
    for start in reversed(range(rows)):
        longest = lengths[start]
        most = min(rows - start, max(1, max_tokens // longest))
        best[start] = min(
            (longest * size + PASS + best[start + size][0], -size) for size in range(1, most + 1)
        )
    sizes, start = [], 0
    while start < rows:
        sizes.append(-best[start][1])
        start += sizes[-1]
    return sizes
