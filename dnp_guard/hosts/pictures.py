"""What is delivered in place of an image that may not be: blurred, or blank."""

from __future__ import annotations

from PIL import Image, ImageFilter

from dnp_guard.types import Outcome

_GREY = (128, 128, 128)


def deliver(picture: Image.Image, outcome: Outcome) -> Image.Image:
    """The picture as its outcome allows: itself, blurred beyond recognition, or a grey one of the same size."""
    if outcome is Outcome.BLURRED:
        return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 8))
    if withheld(outcome):
        return Image.new("RGB", picture.size, _GREY)
    return picture


def withheld(outcome: Outcome) -> bool:
    """Whether nothing of the image may be delivered."""
    return outcome in {Outcome.BLOCKED, Outcome.FAILED_CLOSED}
