"""Measure how far the probabilities that a VLM answers can be trusted. Pure arithmetic on answers and labels."""

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
    """Calibration of the answers about one category, over one range of denoising progress.

    Attributes:
        begin: start of the range of progress; 0 is pure noise.
        end: end of the range; 1 is the finished image. The end itself belongs to the next range, unless it is 1.
        n: number of pictures.
        positives: number of pictures that show the category.
        auc: area under the ROC curve; NaN if all pictures have the same label.
        threshold: lowest threshold that no more than the allowed share of the negatives reaches.
        detected: share of the positives that reach the threshold; NaN without positives.
        error: expected calibration error, with bins of equal width (Guo et al. 2017).
        roc: points (false positive rate, true positive rate) of the ROC curve, in rising order.
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
    """Measure the calibration of the answers about one category.

    Args:
        probabilities: one answered probability per picture.
        labels: per picture, whether it shows the category.
        rate: share of the negatives that may reach the threshold, 0 to 1.
        span: range of denoising progress of the pictures, copied into the result.
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
    """Return the lowest threshold, 0 to 1, that at most a share ``rate`` of the negatives' probabilities reaches.

    The threshold is a multiple of 0.01; it is 1 if no lower one is high enough.

    >>> threshold([0.1, 0.2, 0.9], 0.34)
    0.21
    """
    may = math.floor(rate * len(negative) + 1e-9)
    ordered = sorted(negative, reverse=True)
    if may >= len(ordered):
        return 0.0
    return min(1.0, math.floor(ordered[may] * 100 + 1) / 100)


def expected_error(probabilities: Sequence[float], labels: Sequence[bool]) -> float:
    """Return the expected calibration error: the mean gap between probability and frequency, in bins of equal width."""
    p, y = np.asarray(probabilities, float), np.asarray(labels, float)
    if not len(p):
        return math.nan
    bins = np.minimum((p * BINS).astype(int), BINS - 1)
    gaps = [abs(p[bins == k].mean() - y[bins == k].mean()) * (bins == k).mean() for k in np.unique(bins)]
    return float(sum(gaps))


def roc(positive: Sequence[float], negative: Sequence[float]) -> tuple[tuple[float, float], ...]:
    """Return the points (false positive rate, true positive rate) of the ROC curve, from (0, 0) to (1, 1)."""
    if not positive or not negative:
        return ()
    p, q = np.asarray(positive), np.asarray(negative)
    cuts = sorted({*positive, *negative}, reverse=True)
    return ((0.0, 0.0), *((float((q >= cut).mean()), float((p >= cut).mean())) for cut in cuts))
