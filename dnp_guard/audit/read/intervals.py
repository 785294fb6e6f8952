"""Confidence intervals of proportions."""

from __future__ import annotations

import math

_Z = 1.959963984540054
"""Quantile of the normal distribution for a 95 % interval."""


def wilson(count: int, of: int) -> tuple[float, float]:
    """Compute the 95 % Wilson score interval of a proportion (E. B. Wilson, 1927).

    Args:
        count: number of successes.
        of: number of trials.

    Returns:
        The lower and the upper end, 0 to 1.

    >>> [round(end, 3) for end in wilson(0, 10)]
    [0.0, 0.278]
    """
    if of == 0:
        return 0.0, 1.0
    share, square = count / of, _Z * _Z / of
    middle = (share + square / 2) / (1 + square)
    half = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of)) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)
