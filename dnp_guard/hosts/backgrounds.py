"""Show a picture as it may look when it is displayed: a transparent one looks different on every background."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROUNDS = ("white", "black")
_OPAQUE = 255


def faces(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """Return RGB pictures to query: equally many per picture, those of one picture together.

    If any picture is transparent, every picture is included without its transparency, over white and over black:
    content drawn only in the transparency shows on one of these.
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
