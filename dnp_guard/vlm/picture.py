"""A picture as text: a JPEG in base64, the only form in which one leaves the process."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from dnp_guard.shown import as_shown

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 90


def jpeg(image: Image, *, longest: int = 1024) -> str:
    """A JPEG in base64, without metadata, made smaller where a side is longer than ``longest`` pixels.

    Raises:
        NotAsShown: see :func:`~dnp_guard.shown.as_shown`.
    """
    picture = as_shown(image).copy()
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, icc_profile=None)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_url(image: Image) -> str:
    """The same as a ``data:`` URL."""
    return f"data:image/jpeg;base64,{jpeg(image)}"
