"""How hard a negative pushes. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.policy import Category, Policy


def scale_for(policy: Policy, category: Category) -> float | None:
    """The scale s of the separate term for one category; None in ``mode: replace``, where the host's counts.

    ``constant`` gives the policy's scale, or the category's own; ``severity`` weighs it by the category's severity.
    """
    scale = policy.scale(category.id)
    if scale is None or policy.guidance.strength != "severity":
        return scale
    return scale * category.severity.weight
