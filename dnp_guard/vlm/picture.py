"""Encode a picture as text: a JPEG or a PNG in base64, the only forms in which a picture leaves the process."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from dnp_guard.displayed import as_shown

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 90


def jpeg(image: Image, *, longest: int = 1024) -> str:
    """Encode a picture as JPEG in base64, without metadata, scaled down if a side exceeds ``longest`` pixels.

    Raises:
        NotAsShown: a viewer would show the picture differently from its pixels.
    """
    picture = as_shown(image).copy()
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY, subsampling=0, icc_profile=None)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def data_url(image: Image) -> str:
    """Encode a picture as a ``data:`` URL of a JPEG; see :func:`jpeg`."""
    return f"data:image/jpeg;base64,{jpeg(image)}"


def png_url(image: Image) -> str:
    """Encode a picture as a ``data:`` URL of a PNG, with its exact pixels, which a receipt of the service covers.

    Raises:
        NotAsShown: a viewer would show the picture differently from its pixels.
    """
    buffer = io.BytesIO()
    as_shown(image).save(buffer, "PNG", compress_level=1, icc_profile=None)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
