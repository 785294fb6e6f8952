"""How hard a negative pushes. Pure.

The controller starts a category according to the look's certainty and the category's severity, pushes harder while the
content does not fade, and eases when it is gone. It uses only recorded values, so the record
reproduces the scales.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.canonical import measured

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy

RAISE = 0.25
"""Fraction of the full scale that is added when a look finds that the push so far had no effect."""

FADING = 0.1
"""Least fall of a probability between two looks that is taken as fading."""

EASE = 0.75
"""Factor of the push after a look that no longer sees the category."""

LATE, LATEST = 0.6, 0.75
"""Fraction of the run from which on the push falls, and factor that it reaches at the end."""

DEADBAND = 0.1
"""Fraction of the full scale below which no change is made, so that a negative does not flicker; full is always set."""


@dataclass(frozen=True, slots=True)
class Push:
    """The controller's push of one category, as fractions of the category's scale, 0 to 1.

    Attributes:
        level: the level by the looks so far, regardless of the progress.
        peak: the highest level so far.
        share: the fraction in force.
        probability: probability of the category when it was last seen.
    """

    level: float
    peak: float
    share: float
    probability: float


def seen(before: Push | None, probability: float, threshold: float, weight: float, progress: float | None) -> Push:
    """Return the push after a look that sees the category.

    Args:
        before: the push before; None when it is first seen.
        probability: probability of the category, at or above the threshold.
        threshold: the lowest threshold that was reached.
        weight: weight of the category's severity.
        progress: fraction of the run that is done; None if unknown.
    """
    now = measured(probability)
    if before is None:
        sure = max(0.0, now - threshold) / (1 - threshold) if threshold < 1 else 1.0
        level = (1 + weight) / 2 * (1 + sure) / 2
        return Push(level, level, level * late(progress), now)
    fades = before.probability - now >= FADING and before.level == before.peak
    level = before.level if fades else min(1.0, before.peak + RAISE)
    return Push(level, max(level, before.peak), _steady(before.share, level * late(progress)), now)


def gone(before: Push, progress: float | None) -> Push:
    """Return the push after a look that no longer sees the category, while its negative is held."""
    level = before.level * EASE
    return Push(level, before.peak, _steady(before.share, level * late(progress)), before.probability)


def late(progress: float | None) -> float:
    """Return the weight of a step: 1 while the layout forms, less once only small features do.

    A negative acts on what has been drawn by then (Ban et al., arXiv 2406.02965), so a late one needs less.
    """
    if progress is None or progress <= LATE:
        return 1.0
    return 1 - (1 - LATEST) * (progress - LATE) / (1 - LATE)


def share_for(policy: Policy, category: Category, push: Push | None = None) -> float:
    """Return the fraction of the full strength with which one category is steered, 0 to 1.

    ``constant`` uses all of it; ``severity`` weighs it by the category's severity; ``controller`` uses the fraction in
    force.
    """
    if policy.guidance.strength == "severity":
        return category.severity.weight
    if policy.guidance.strength == "controller" and push is not None:
        return push.share
    return 1.0


def alpha_for(alpha: float, share: float) -> float:
    """Return NAG's alpha at a fraction of the full strength, at most 1.

    The line through 0 is our choice: on the embedded model it suppresses about as much as the same fraction of the
    separate scale.
    """
    return min(1.0, alpha * share)


def _steady(before: float, target: float) -> float:
    return target if target == 1.0 or abs(target - before) >= DEADBAND else before
