"""Compute intervals of measured shares and means, a test of paired shares, and the area under a ROC curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

_Z95 = 1.959964
_RESAMPLES = 2000


def wilson(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); (0, 1) if ``n`` is 0.

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a mean (Efron 1979).

    Args:
        values: one value per image; for a paired comparison, the differences of the pairs.
        seed: seed of the resamples: the same values and seed give the same interval.

    >>> bootstrap([2.0, 2.0, 2.0])
    (2.0, 2.0)
    """
    return bootstrap_ratio(values, [1.0] * len(values), seed)


def bootstrap_ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of ``sum(over) / sum(under)``; pairs are resampled together.

    Args:
        over: one value per pair.
        under: one positive value per pair.
        seed: seed of the resamples.

    Returns:
        The ends of the interval; NaN if there are no pairs.
    """
    if not len(over):
        return math.nan, math.nan
    p, q = np.asarray(over, float), np.asarray(under, float)
    drawn = np.random.default_rng(seed).integers(len(p), size=(_RESAMPLES, len(p)))
    low, high = np.percentile(p[drawn].sum(1) / q[drawn].sum(1), (2.5, 97.5))
    return float(low), float(high)


def jackknife(statistic: Callable[[NDArray[Any]], float], values: ArrayLike, groups: int = 20) -> tuple[float, float]:
    """Return the 95 % jackknife interval of a statistic (Quenouille 1956, Tukey 1958).

    The jackknife leaves out one group of rows at a time. It suits statistics of covariances. The bootstrap does not:
    its resamples repeat rows, so they span fewer dimensions, and the statistic is biased.

    Args:
        statistic: function of an array of rows.
        values: one row per image.
        groups: number of groups, at most one per image.

    >>> jackknife(lambda rows: float(rows.mean()), [[1.0], [1.0], [1.0]])
    (1.0, 1.0)
    """
    rows = np.asarray(values, float)
    count = min(groups, len(rows))
    group = np.arange(len(rows)) % count
    left_out = np.array([statistic(rows[group != number]) for number in range(count)])
    error = math.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum())
    estimate = statistic(rows)
    return estimate - _Z95 * error, estimate + _Z95 * error


def mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of McNemar's exact test (McNemar 1947).

    The null hypothesis: if exactly one member of a pair is positive, it is the first or the second with equal
    probability.

    Args:
        gained: number of pairs in which only the first member is positive.
        lost: number of pairs in which only the second member is positive.

    >>> mcnemar(0, 5)
    0.0625
    """
    n = gained + lost
    tail = sum(math.comb(n, k) for k in range(min(gained, lost) + 1))
    return min(1.0, tail / 2 ** (n - 1)) if n else 1.0


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the probability that a positive outscores a negative; a tie weighs one half (Mann and Whitney 1947).

    >>> auc([0.9, 0.6], [0.1, 0.6])
    0.875
    """
    if not positive or not negative:
        return math.nan
    p, q = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(((p > q) + 0.5 * (p == q)).mean())
