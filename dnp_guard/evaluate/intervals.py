"""Intervals of measured shares, and the area under a ROC curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_Z95 = 1.959964


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share (Wilson 1927).

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, _Z95**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z95 * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """The probability that a positive scores over a negative, ties counting half (Mann and Whitney 1947).

    >>> auc([0.9, 0.6], [0.1, 0.6])
    0.875
    """
    if not positive or not negative:
        return math.nan
    p, q = np.asarray(positive)[:, None], np.asarray(negative)[None, :]
    return float(((p > q) + 0.5 * (p == q)).mean())
