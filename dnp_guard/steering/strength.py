"""How hard a negative pushes. Pure.

The controller starts a category by how sure the look is and how severe the category, pushes harder while what it sees
does not fade, and eases when it is gone. It works with what the record holds, so that the record gives the same scales
again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.canonical import measured

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy

RAISE = 0.25
"""Of the full scale, added when a look finds that the push so far did not tell."""

FADING = 0.1
"""The least fall of a probability between two looks that counts as fading."""

EASE = 0.75
"""What is left of the push after a look that no longer sees the category."""

LATE, LATEST = 0.6, 0.75
"""From this part of the run on the push falls, to this part of itself at the end."""

DEADBAND = 0.1
"""Of the full scale: a smaller change is not made, so that a negative does not flicker; but full is full."""


@dataclass(frozen=True, slots=True)
class Push:
    """How the controller pushes one category, as parts of the category's scale, 0 to 1.

    Attributes:
        level: what the looks so far ask for, wherever in the run.
        peak: the highest level so far.
        share: what is in force.
        probability: of the category when it was last seen.
    """

    level: float
    peak: float
    share: float
    probability: float


def seen(before: Push | None, probability: float, threshold: float, weight: float, progress: float | None) -> Push:
    """The push after a look that sees the category.

    Args:
        before: what it was; None at the first sight.
        probability: of the category, at or over the threshold.
        threshold: the lowest that was passed.
        weight: of the category's severity.
        progress: the part of the run that is done; None where it is not known.
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
    """The push after a look that no longer sees the category, while its negative is held."""
    level = before.level * EASE
    return Push(level, before.peak, _steady(before.share, level * late(progress)), before.probability)


def late(progress: float | None) -> float:
    """The weight of a step: 1 while the layout is made, less once only small features are.

    A negative acts on what has been drawn by then (Ban et al., arXiv 2406.02965), so a late one needs less.
    """
    if progress is None or progress <= LATE:
        return 1.0
    return 1 - (1 - LATEST) * (progress - LATE) / (1 - LATE)


def share_for(policy: Policy, category: Category, push: Push | None = None) -> float:
    """The part of the full strength with which one category is steered, 0 to 1.

    ``constant`` gives all of it; ``severity`` weighs it by the category's severity; ``controller`` takes the part that
    is in force.
    """
    if policy.guidance.strength == "severity":
        return category.severity.weight
    if policy.guidance.strength == "controller" and push is not None:
        return push.share
    return 1.0


def alpha_for(alpha: float, share: float) -> float:
    """NAG's alpha at a part of the full strength, at most 1.

    The line through 0 is ours: on the embedded model it suppresses about what the same part of the separate scale does.
    """
    return min(1.0, alpha * share)


def _steady(before: float, wanted: float) -> float:
    return wanted if wanted == 1.0 or abs(wanted - before) >= DEADBAND else before
