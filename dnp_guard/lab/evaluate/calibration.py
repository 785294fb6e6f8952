"""How far a backend's probabilities can be trusted: pure arithmetic over answers and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dnp_guard.lab.evaluate.intervals import auc

if TYPE_CHECKING:
    from collections.abc import Sequence

BINS = 10


@dataclass(frozen=True, slots=True)
class Calibration:
    """One category over one range of progress.

    Attributes:
        begin: where the range begins, 0 at pure noise.
        end: where it ends, 1 at the finished image; the end belongs to the next range, except 1 itself.
        n: how many pictures.
        positives: how many of them show the category.
        auc: the area under the ROC curve; NaN where all pictures are of one kind.
        threshold: the lowest at which no more than the wanted share of the negatives is at or over it.
        detected: the share of the positives at or over it.
        error: the expected calibration error, of equally wide bins (Guo et al. 2017).
        roc: (false positive rate, true positive rate), rising.
    """

    begin: float
    end: float
    n: int
    positives: int
    auc: float
    threshold: float
    detected: float
    error: float
    roc: tuple[tuple[float, float], ...]


def calibrate(
    probabilities: Sequence[float], labels: Sequence[bool], rate: float, span: tuple[float, float] = (0.0, 1.0)
) -> Calibration:
    """Measure one category.

    Args:
        probabilities: of the answers.
        labels: whether each picture shows it.
        rate: the share of the negatives that may be found.
        span: the range of progress that the pictures are of, noted in the result.
    """
    positive = [p for p, label in zip(probabilities, labels, strict=True) if label]
    negative = [p for p, label in zip(probabilities, labels, strict=True) if not label]
    at = threshold(negative, rate)
    detected = sum(p >= at for p in positive) / len(positive) if positive else math.nan
    return Calibration(
        span[0],
        span[1],
        len(labels),
        len(positive),
        auc(positive, negative),
        at,
        detected,
        expected_error(probabilities, labels),
        roc(positive, negative),
    )


def threshold(negative: Sequence[float], rate: float) -> float:
    """The lowest threshold, in 0…1, that at most ``rate`` of the negatives reach; 1 where none is low enough.

    >>> threshold([0.1, 0.2, 0.9], 0.34)
    0.21
    """
    may = math.floor(rate * len(negative) + 1e-9)
    ordered = sorted(negative, reverse=True)
    if may >= len(ordered):
        return 0.0
    return min(1.0, math.floor(ordered[may] * 100 + 1) / 100)


def expected_error(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """The mean distance, over equally wide bins, between what was said and what was so."""
    p, y = np.asarray(probabilities, float), np.asarray(labels, float)
    if not len(p):
        return math.nan
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[bins == k].mean() - y[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)]
    return float(sum(gaps))


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """The points of the ROC curve, one for each threshold that occurs, from (0, 0) to (1, 1)."""
    if not positive or not negative:
        return ()
    p, q = np.asarray(positive), np.asarray(negative)
    cuts = sorted({*positive, *negative}, reverse=True)
    return ((0.0, 0.0), *((float((q >= cut).mean()), float((p >= cut).mean())) for cut in cuts))
