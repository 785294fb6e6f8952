"""Pictures as they arrive: text to RGB, with nothing decoded that is too large."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from typing import TYPE_CHECKING

from PIL import Image

from dnp_guard.server.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.hosts.protocol import Picture

_FORMATS = {"data:image/jpeg;base64": "JPEG", "data:image/png;base64": "PNG"}
"""Formats whose size is read before any pixel is decoded."""

_LABEL = b"dnp-guard picture 1\0"


def pictures(sent: Sequence[Picture], images: int, pixels: int) -> list[Image.Image]:
    """The pictures of a request, in the order of the batch.

    Args:
        sent: one an image of the session, in any order.
        images: of the session.
        pixels: that one of them may have.

    Returns:
        RGB pictures.

    Raises:
        Problem: they are not one an image, or one of them cannot be taken.
    """
    by_index = {each.index: each for each in sent}
    if len(sent) != images or set(by_index) != set(range(images)):
        raise Problem("images", f"Send each image of 0…{images - 1} once.")
    return [_picture(by_index[index], pixels) for index in range(images)]


def _picture(sent: Picture, pixels: int) -> Image.Image:
    head, _, text = sent.data.partition(",")
    if head not in _FORMATS:
        raise Problem("picture", f"Image {sent.index} is no data: URL of a JPEG or PNG in base64.", index=sent.index)
    try:
        data = base64.b64decode(text, validate=True)
        with Image.open(io.BytesIO(data), formats=[_FORMATS[head]]) as opened:
            width, height = opened.size
            if width * height <= pixels:
                opened.load()
                return opened if opened.mode == "RGB" else opened.convert("RGB")
    except (
        binascii.Error,
        OSError,
        ValueError,
        SyntaxError,
        Warning,
        Image.DecompressionBombError,
        MemoryError,
    ) as error:
        raise Problem(
            "picture", f"Image {sent.index} cannot be decoded: {type(error).__name__}.", index=sent.index
        ) from error
    said = f"Image {sent.index} has {width} × {height} pixels; {pixels} are taken at most."
    raise Problem("picture", said, index=sent.index)


def digest(picture: Image.Image) -> str:
    """SHA-256, in hexadecimal, of what a picture shows: its width, height and RGB pixels, whatever file it is in.

    The bytes hashed are ``dnp-guard picture 1``, a zero byte, width and height as big-endian 32-bit numbers, and three
    bytes a pixel, row by row.
    """
    rgb = picture if picture.mode == "RGB" else picture.convert("RGB")
    width, height = rgb.size
    return hashlib.sha256(_LABEL + width.to_bytes(4, "big") + height.to_bytes(4, "big") + rgb.tobytes()).hexdigest()
