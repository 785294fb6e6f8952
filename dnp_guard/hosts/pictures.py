"""What is delivered in place of an image that may not be: blurred, or blank."""

from __future__ import annotations

from PIL import Image, ImageFilter

from dnp_guard.types import Outcome

_GREY = (128, 128, 128)


def blank(size: tuple[int, int]) -> Image.Image:
    """A grey picture, of width and height in pixels, in place of one that is withheld."""
    return Image.new("RGB", size, _GREY)


def blurred(picture: Image.Image) -> Image.Image:
    """A picture blurred beyond recognition."""
    return picture.filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


def withheld(outcome: Outcome) -> bool:
    """Whether nothing of the image may be delivered."""
    return outcome in {Outcome.BLOCKED, Outcome.FAILED_CLOSED}
