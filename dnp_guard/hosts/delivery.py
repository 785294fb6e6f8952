"""Replace images that must not be delivered: by a blurred copy, or by a notice that the image is withheld."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.hosts.withheld import blurred, cover
from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from dnp_guard.policy.model.policy import Policy


def withheld(outcome: Outcome) -> bool:
    """Return whether an image with this outcome must not be delivered, not even blurred."""
    return outcome.withholds


def delivered(policy: Policy, pictures: Sequence[Image.Image], outcomes: Sequence[Outcome]) -> list[Image.Image]:
    """Return the pictures as their outcomes allow: unchanged, blurred, or replaced by a notice."""
    return [_delivered(policy, picture, outcome) for picture, outcome in zip(pictures, outcomes, strict=True)]


def _delivered(policy: Policy, picture: Image.Image, outcome: Outcome) -> Image.Image:
    if outcome.withholds:
        return cover(policy, outcome, picture.size, lambda: picture)
    return blurred(picture) if outcome is Outcome.BLURRED else picture
