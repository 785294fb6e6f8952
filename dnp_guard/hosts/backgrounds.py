"""Show a picture as viewers can see it: a transparent picture looks different on every background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROUNDS = ("white", "black")
_OPAQUE = 255


def faces(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the RGB pictures to query: one per picture, or three per picture if any of them is transparent.

    The three are the picture without its transparency, over white and over black, in this order: content that is drawn
    only in the transparency shows in one of them. The three of one picture follow each other.
    """
    if not any(_seen_through(picture) for picture in pictures):
        return [picture.convert("RGB") for picture in pictures]
    return [face for picture in pictures for face in (picture.convert("RGB"), *_grounded(picture.convert("RGBA")))]


def _seen_through(picture: Image.Image) -> bool:
    if not picture.has_transparency_data:
        return False
    least, _ = picture.convert("RGBA").getchannel("A").getextrema()
    return least != _OPAQUE


def _grounded(picture: Image.Image) -> list[Image.Image]:
    grounds = (Image.new("RGBA", picture.size, ground) for ground in _GROUNDS)
    return [Image.alpha_composite(ground, picture).convert("RGB") for ground in grounds]
