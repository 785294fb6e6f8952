"""Pictures on their way to the service, and what is shown in place of those that are not delivered."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

_GREY = (128, 128, 128)
_LOSSLESS = 6 * 1024 * 1024
"""Pixels of a batch: of what a request may hold, a part that PNG keeps to."""

_PREVIEW = 768
"""The longer side of a preview, in pixels: more than vision-language models look at."""


def preview_url(picture: Image.Image) -> str:
    """A preview as a data URL."""
    small = picture.convert("RGB")
    small.thumbnail((_PREVIEW, _PREVIEW))
    return _url(small, "JPEG")


def finished_urls(finished: Sequence[Image.Image]) -> list[str]:
    """Finished pictures as data URLs: without loss, as receipts need it, unless that is too much for one request."""
    pixels = sum(each.width * each.height for each in finished)
    return [_url(opaque(each), "PNG" if pixels <= _LOSSLESS else "JPEG") for each in finished]


def opaque(picture: Image.Image) -> Image.Image:
    """A picture as it is judged, and so delivered: without transparency, which would show something else."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    shown = picture.convert("RGB")
    shown.info.pop("transparency", None)
    return shown


def _url(picture: Image.Image, form: str) -> str:
    written = io.BytesIO()
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if form == "JPEG" else {"compress_level": 1}
    picture.save(written, form, **options)
    return f"data:image/{form.lower()};base64," + base64.b64encode(written.getvalue()).decode()


def from_tensor(image: Any) -> Image.Image:
    """A picture of a tensor [3, H, W] of 0…1, cut off to whole levels as the host does."""
    return Image.fromarray((image.detach().float() * 255).byte().permute(1, 2, 0).cpu().numpy())


def blank(picture: Image.Image) -> Image.Image:
    """Grey, in the size of a picture that is withheld."""
    return Image.new("RGB", picture.size, _GREY)


def blurred(picture: Image.Image) -> Image.Image:
    """A picture blurred beyond recognition."""
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


def acted(picture: Image.Image, action: str) -> Image.Image:
    """A picture as the final look's action leaves it; anything but ``pass`` and ``blur`` withholds it."""
    if action == "pass":
        return opaque(picture)
    return blurred(picture) if action == "blur" else blank(picture)
