"""What is delivered in place of an image that may not be: blurred, or blank."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageFilter

from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

_GREY = (128, 128, 128)


def blank(size: tuple[int, int]) -> Image.Image:
    """A grey picture, of width and height in pixels, in place of one that is withheld."""
    return Image.new("RGB", size, _GREY)


def blurred(picture: Image.Image) -> Image.Image:
    """A picture blurred beyond recognition, in RGB: what is drawn in its transparency goes with that."""
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


def withheld(outcome: Outcome) -> bool:
    """Whether nothing of the image may be delivered."""
    return outcome in {Outcome.BLOCKED, Outcome.FAILED_CLOSED}


def delivered(pictures: Sequence[Image.Image], outcomes: Sequence[Outcome]) -> list[Image.Image]:
    """Each picture as its outcome allows: itself, blurred, or a blank one."""
    shown = []
    for picture, outcome in zip(pictures, outcomes, strict=True):
        if withheld(outcome):
            shown.append(blank(picture.size))
        else:
            shown.append(blurred(picture) if outcome is Outcome.BLURRED else picture)
    return shown
