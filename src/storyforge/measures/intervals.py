"""Differences between writers with 95 % intervals, over groups that resemble each other inside."""

import math
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from scipy.special import stdtrit

MIN_GROUPS = 3  # for an interval: two differ by chance too easily


def difference(parts: Iterable[tuple[str, float, float]]) -> dict[str, float | None]:
    """Of (group, difference, weight) triples: differences per unit of weight, with a 95 % interval.

    Stories of one play or one prompt resemble each other, so intervals from single stories would be too
    narrow (Miller 2024, arXiv:2411.00640, section 2.2): whole groups are left out in turn, and the spread of
    what remains (the jackknife: Efron and Tibshirani 1993, section 11.5) is scaled by Student's t. Its
    degrees of freedom are one less than the effective number of groups, Kish's (Σw)² / Σw², which is that of
    all groups where they weigh the same. Fewer than MIN_GROUPS: no interval. Of nothing all is None.

    How often it covers, simulated: 94 to 97 % where the groups' effects are normal, of equal and of unequal
    weight (with groups - 1 degrees 91 % at 6 groups, a few of which hold most of the weight). Effects that
    are skewed are covered less often: exponential ones 88 % of the time at 3 groups, 89 at 6, 92 at 24, 94 at
    64. Corrections for skewness do not help at such numbers (Johnson 1978: no change; Hall 1992: covers less
    where effects are symmetric), and percentiles of a bootstrap over groups cover 84 % of normal ones at 6.
    """
    by_group: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, value, weight in parts:
        by_group[group][0] += value
        by_group[group][1] += weight
    if not by_group:
        return {"value": None, "low": None, "high": None, "groups": 0}
    # (groups, 2): summed difference and summed weight. Sorted, so that the order of stories has no influence.
    sums = np.array([by_group[group] for group in sorted(by_group)])
    count, (total, weight) = len(sums), sums.sum(axis=0)
    low = high = None
    if count >= MIN_GROUPS:
        # (groups,): the value without each group. A ratio of sums, not a mean of ratios: a group counts by
        # its weight, as it does in the value itself.
        without = (total - sums[:, 0]) / (weight - sums[:, 1])
        error = math.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
        effective = weight**2 / (sums[:, 1] ** 2).sum()  # from 1, where one group holds all, to `count`
        reach = stdtrit(max(effective - 1, 1), 0.975) * error
        low, high = total / weight - reach, total / weight + reach
    found = {"value": total / weight, "low": low, "high": high, "groups": count}
    return {name: rounded(number) for name, number in found.items()}


def rounded(value: float | None) -> float | None:
    """Six digits after the point, short enough to read in a diff."""
    return value if value is None or isinstance(value, int) else round(float(value), 6)
