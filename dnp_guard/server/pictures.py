"""Decode the pictures of a request to RGB, and refuse those that are too large before decoding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from dnp_guard.displayed import NotAsShown, as_shown
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dnp_guard.hosts.protocol import Picture
    from dnp_guard.server.settings import Limits

_FORMATS = {"data:image/jpeg;base64": "JPEG", "data:image/png;base64": "PNG"}
"""Formats whose size can be read before any pixel is decoded."""

_THINNEST = 50
"""Largest ratio of the sides of a picture: models refuse thinner ones."""

_UNREADABLE = (
    binascii.Error,
    OSError,
    ValueError,
    SyntaxError,
    Warning,
    Image.DecompressionBombError,
    MemoryError,
)

_LABEL = b"dnp-guard picture 1\0"


_SCAN, _MOST_SCANS = b"\xff\xda", 64
"""First bytes of a JPEG scan, and how many scans are decoded: a progressive JPEG has about ten."""


def inputs(sent: Sequence[Picture], limits: Limits) -> dict[int, Image.Image]:
    """Open the input pictures of a generation, such as an image to edit; see :func:`opened`.

    Raises:
        Refusal: there are too many, they are not numbered from 0, or one of them cannot be accepted.
    """
    if len(sent) > limits.images:
        raise Refusal("images", f"At most {limits.images} pictures per request are allowed; send fewer.")
    return opened(sent, range(len(sent)), limits)


def opened(sent: Sequence[Picture], images: Sequence[int], limits: Limits) -> dict[int, Image.Image]:
    """Open the pictures of a request, and read only their headers.

    Args:
        sent: one picture per image, in any order.
        images: indices of the images that the request has to show.
        limits: limits per picture and per request.

    Returns:
        The opened pictures by image index, in the order of ``images``.

    Raises:
        Refusal: there is not exactly one picture per image, a picture is malformed, or a limit is exceeded.
    """
    by_index = {picture.index: picture for picture in sent}
    if len(sent) != len(images) or set(by_index) != set(images):
        raise Refusal("images", f"Send each of the images {', '.join(map(str, images))} once.")
    by_image = {index: _opened(by_index[index], limits.pixels) for index in images}
    if (total := _pixels(by_image)) > limits.total_pixels:
        raise Refusal("picture", f"{total} pixels in all; at most {limits.total_pixels} per request are allowed.")
    return by_image


def decoded(pictures: Mapping[int, Image.Image], take: Callable[[int], None]) -> list[Image.Image]:
    """Decode the pictures of a request to RGB.

    Args:
        pictures: the opened pictures by image index.
        take: reserves memory; it is called with the number of all pixels before any is decoded, and may refuse.

    Returns:
        The decoded pictures, in the same order.

    Raises:
        Refusal: a picture cannot be decoded, or the requests in progress hold too many pixels.
    """
    take(_pixels(pictures))
    return [_decoded(index, picture) for index, picture in pictures.items()]


def _pixels(pictures: Mapping[int, Image.Image]) -> int:
    return sum(picture.width * picture.height for picture in pictures.values())


def _opened(sent: Picture, pixels: int) -> Image.Image:
    """Open a picture, and read only its header; refuse one with more than ``pixels`` pixels."""
    head, _, text = sent.data.partition(",")
    if head not in _FORMATS:
        raise Refusal("picture", f"Image {sent.index} is not a data: URL of a JPEG or PNG in base64.", index=sent.index)
    with _refusing(sent.index):
        data = base64.b64decode(text, validate=True)
        opened = Image.open(io.BytesIO(data), formats=[_FORMATS[head]])
    if opened.width * opened.height > pixels:
        size = f"{opened.width} × {opened.height}"
        detail = f"Image {sent.index} has {size} pixels; at most {pixels} are allowed."
        raise Refusal("picture", detail, index=sent.index)
    if max(opened.size) > _THINNEST * min(opened.size):
        raise Refusal("picture", f"Image {sent.index} is over {_THINNEST} times as long as wide.", index=sent.index)
    if _FORMATS[head] == "JPEG" and data.count(_SCAN) > _MOST_SCANS:
        raise Refusal("picture", f"Image {sent.index} has over {_MOST_SCANS} scans.", index=sent.index)
    return opened


def _decoded(index: int, opened: Image.Image) -> Image.Image:
    with _refusing(index), opened:
        opened.load()
        return as_shown(opened)


@contextmanager
def _refusing(index: int) -> Iterator[None]:
    """Turn an error raised while the picture at an index is decoded into a refusal."""
    try:
        yield
    except NotAsShown as error:
        raise Refusal("picture", f"Image {index}: {error.message}.", index=index) from error
    except _UNREADABLE as error:
        raise Refusal("picture", f"Image {index} cannot be decoded: {type(error).__name__}.", index=index) from error


def digest(picture: Image.Image) -> str:
    """Return the SHA-256, in hex, of a picture's content: its width, height and RGB pixels, whatever its file format.

    The hashed bytes are ``dnp-guard picture 1``, a zero byte, width and height as big-endian 32-bit numbers, and three
    bytes per pixel, row by row.

    Raises:
        NotAsShown: a viewer would show the picture differently from its pixels.
    """
    rgb = as_shown(picture)
    width, height = rgb.size
    return hashlib.sha256(_LABEL + width.to_bytes(4, "big") + height.to_bytes(4, "big") + rgb.tobytes()).hexdigest()
