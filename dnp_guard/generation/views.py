"""Make several views of a finished picture, such as its mirror image: one may show what another hides. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageOps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.policy.model.ends import View

_PART = 0.75
"""Fraction of width and height that a crop shows."""


def views(picture: Image.Image, names: Sequence[View]) -> list[Image.Image]:
    """Return a picture and its views.

    Args:
        picture: a finished image.
        names: views to make: ``flip``, the mirror image; ``crops``, the upper left and the lower right part;
            ``double``, the picture at twice its size.

    Returns:
        The picture itself, then its views.
    """
    width, height = picture.size
    shown = [picture]
    for name in names:
        if name == "flip":
            shown.append(ImageOps.mirror(picture))
        elif name == "crops":
            part = max(1, round(width * _PART)), max(1, round(height * _PART))
            shown.append(picture.crop((0, 0, *part)))
            shown.append(picture.crop((width - part[0], height - part[1], width, height)))
        else:
            shown.append(picture.resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
    return shown
