"""What a picture may look like where it is displayed: one that can be seen through looks otherwise on each ground."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

_GROUNDS = ("white", "black")
_OPAQUE = 255


def faces(pictures: Sequence[Image.Image]) -> list[Image.Image]:
    """RGB pictures to ask about: as many of each, those of one together.

    Where one of them can be seen through, each is there without its transparency, over white and over black: what is
    drawn in the transparency alone shows on one of these.
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
