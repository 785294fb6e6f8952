"""Pictures as they arrive: text to RGB, with nothing decoded that is too large."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
from contextlib import contextmanager
from typing import TYPE_CHECKING

from PIL import Image

from dnp_guard.server.problems import Refusal
from dnp_guard.shown import NotAsShown, as_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dnp_guard.hosts.protocol import Picture
    from dnp_guard.server.settings import Limits

_FORMATS = {"data:image/jpeg;base64": "JPEG", "data:image/png;base64": "PNG"}
"""Formats whose size is read before any pixel is decoded."""

_THINNEST = 50
"""How much longer than wide a picture may be: models refuse to look at thinner ones."""

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
"""What a scan of a JPEG begins with, and how many are decoded: a progressive one has about ten."""


def inputs(sent: Sequence[Picture], limits: Limits) -> dict[int, Image.Image]:
    """The pictures that a request brought; see :func:`opened`.

    Raises:
        Refusal: they are too many, are not counted from 0, or one of them cannot be taken.
    """
    if len(sent) > limits.images:
        raise Refusal("images", f"{limits.images} pictures of a request are taken; send fewer.")
    return opened(sent, range(len(sent)), limits)


def opened(sent: Sequence[Picture], images: Sequence[int], limits: Limits) -> dict[int, Image.Image]:
    """The pictures of a request by index, in the order of the batch, of which the headers alone are read.

    Args:
        sent: one an image that is drawn, in any order.
        images: that are drawn.
        limits: of one of them, and of all together.

    Raises:
        Refusal: they are not one an image, or one of them cannot be taken.
    """
    by_index = {each.index: each for each in sent}
    if len(sent) != len(images) or set(by_index) != set(images):
        raise Refusal("images", f"Send each image of {', '.join(map(str, images))} once.")
    found = {index: _opened(by_index[index], limits.pixels) for index in images}
    if (total := _pixels(found)) > limits.total_pixels:
        raise Refusal("picture", f"{total} pixels in all; {limits.total_pixels} a request are taken at most.")
    return found


def decoded(found: Mapping[int, Image.Image], take: Callable[[int], None]) -> list[Image.Image]:
    """The RGB pictures of a request, in the order of the batch.

    Args:
        found: as opened.
        take: told how many pixels they have in all, before one is decoded; it may refuse them.

    Raises:
        Refusal: one of them cannot be taken.
    """
    take(_pixels(found))
    return [_decoded(index, picture) for index, picture in found.items()]


def _pixels(found: Mapping[int, Image.Image]) -> int:
    return sum(picture.width * picture.height for picture in found.values())


def _opened(sent: Picture, pixels: int) -> Image.Image:
    """A picture whose header alone is read."""
    head, _, text = sent.data.partition(",")
    if head not in _FORMATS:
        raise Refusal("picture", f"Image {sent.index} is no data: URL of a JPEG or PNG in base64.", index=sent.index)
    with _refusing(sent.index):
        data = base64.b64decode(text, validate=True)
        opened = Image.open(io.BytesIO(data), formats=[_FORMATS[head]])
    if opened.width * opened.height > pixels:
        size = f"{opened.width} × {opened.height}"
        raise Refusal("picture", f"Image {sent.index} has {size} pixels; {pixels} are taken at most.", index=sent.index)
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
    """Refuse a picture that is none, whatever is wrong with it."""
    try:
        yield
    except NotAsShown as error:
        raise Refusal("picture", f"Image {index}: {error.message}.", index=index) from error
    except _UNREADABLE as error:
        raise Refusal("picture", f"Image {index} cannot be decoded: {type(error).__name__}.", index=index) from error


def digest(picture: Image.Image) -> str:
    """SHA-256, in hexadecimal, of what a picture shows: its width, height and RGB pixels, whatever file it is in.

    The bytes hashed are ``dnp-guard picture 1``, a zero byte, width and height as big-endian 32-bit numbers, and three
    bytes a pixel, row by row.

    Raises:
        NotAsShown: it is not shown as its pixels say.
    """
    rgb = as_shown(picture)
    width, height = rgb.size
    return hashlib.sha256(_LABEL + width.to_bytes(4, "big") + height.to_bytes(4, "big") + rgb.tobytes()).hexdigest()
