"""Encode a picture as text: a JPEG in base64, the only form in which a picture leaves the process."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from dnp_guard.shown import as_shown

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 90


def jpeg(image: Image, *, longest: int = 1024) -> str:
    """Encode a picture as JPEG in base64, without metadata, scaled down if a side exceeds ``longest`` pixels.

    Raises:
        NotAsShown: see :func:`~dnp_guard.shown.as_shown`.
    """
    picture = as_shown(image).copy()
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, icc_profile=None)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_url(image: Image) -> str:
    """Encode a picture as a ``data:`` URL; see :func:`jpeg`."""
    return f"data:image/jpeg;base64,{jpeg(image)}"
