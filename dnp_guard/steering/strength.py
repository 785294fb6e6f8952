"""Compute how strongly a negative prompt steers away from a category. All functions are pure.

Under ``guidance.strength: controller``, a controller sets this strength, the push, after every query. The first push
follows from the certainty of the finding and the severity of the category. It grows while the category stays as
probable, and shrinks when the category is no longer found. The controller uses only values of the audit record, so the
strengths can be computed again from the record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.canonical import measured

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy

RAISE = 0.25
"""Fraction of the full scale that is added when a query shows that the push so far had no effect."""

FADING = 0.1
"""Smallest fall of a category's probability between two queries that means that the category fades."""

EASE = 0.75
"""Factor of the push after a query that no longer finds the category."""

LATE, LATEST = 0.6, 0.75
"""Fraction of the steps after which the push falls, and the factor that it falls to at the last step."""

DEADBAND = 0.1
"""Smallest change of a push, as a fraction of the full scale, so that it does not flicker; full scale is always set."""


@dataclass(frozen=True, slots=True)
class Push:
    """The strength with which the controller steers away from a category, as fractions of the category's scale, 0 to 1.

    Attributes:
        level: push that follows from the queries so far, before the factor of :func:`late`.
        peak: highest level so far.
        share: push in force: the level times that factor, without changes smaller than :data:`DEADBAND`.
        probability: probability of the category when it was last found.
    """

    level: float
    peak: float
    share: float
    probability: float


def seen(before: Push | None, probability: float, threshold: float, weight: float, progress: float | None) -> Push:
    """Return the push after a query that finds the category.

    Args:
        before: push before the query; None when the category is found for the first time.
        probability: probability of the category, at or above the threshold.
        threshold: threshold of the finding.
        weight: weight of the category's severity, 0 to 1.
        progress: fraction of the steps that are done; None if unknown.
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
    """Return the push after a query that no longer finds the category, while its negative prompt stays in force."""
    level = before.level * EASE
    return Push(level, before.peak, _steady(before.share, level * late(progress)), before.probability)


def late(progress: float | None) -> float:
    """Return the factor of a push by progress: 1 while the layout of the image forms, less when only details form.

    A negative prompt removes content that the image already shows (Ban et al., arXiv 2406.02965). Late in the run this
    takes less strength.
    """
    if progress is None or progress <= LATE:
        return 1.0
    return 1 - (1 - LATEST) * (progress - LATE) / (1 - LATE)


def share_for(policy: Policy, category: Category, push: Push | None = None) -> float:
    """Return the fraction of the full strength with which one category is steered, 0 to 1.

    Under ``guidance.strength``, ``constant`` means 1, ``severity`` the weight of the category's severity, and
    ``controller`` the push in force.
    """
    if policy.guidance.strength == "severity":
        return category.severity.weight
    if policy.guidance.strength == "controller" and push is not None:
        return push.share
    return 1.0


def alpha_for(alpha: float, share: float) -> float:
    """Return NAG's alpha at a fraction of the full strength: the policy's alpha times the fraction, at most 1.

    The product is our choice: on the embedded model it suppresses about as much as the same fraction of the scale of
    the separate term.
    """
    return min(1.0, alpha * share)


def _steady(before: float, target: float) -> float:
    return target if target == 1.0 or abs(target - before) >= DEADBAND else before
