"""Encode pictures for requests to the service, and make the placeholders that replace withheld ones."""

from __future__ import annotations

import base64
import io
import textwrap
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFilter, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

WITHHELD = "Image withheld"
UNCHECKED = "Image withheld: it could not be checked"
"""Text on a withheld picture if the service gives none."""

_REASONS = {
    "service_down": "the guard service does not answer",
    "service_refused": "the guard service refused to check it",
    "request_refused": "the guard service refuses the request",
    "bad_answer": "the guard service gave an answer that could not be read",
}
"""Readable reasons why a picture could not be checked, by the short name of the failure."""

_GREY = (128, 128, 128)
_INK = (255, 255, 255)
_SMALLEST = 9
"""Height of the smallest readable letters, in pixels."""

_LOSSLESS = 6 * 1024 * 1024
"""Largest number of pixels in a batch whose PNG files fit into one request."""

_PREVIEW = 768
"""The longer side of a preview, in pixels; vision-language models look at fewer."""


def preview_url(picture: Image.Image) -> str:
    """Return a preview as a data URL, scaled down to what a vision-language model needs."""
    small = picture.convert("RGB")
    small.thumbnail((_PREVIEW, _PREVIEW))
    return _url(small, "JPEG")


def finished_urls(finished: Sequence[Image.Image]) -> list[str]:
    """Return finished pictures as data URLs: lossless PNG, on which receipts rely, or JPEG if they exceed a request."""
    pixels = sum(picture.width * picture.height for picture in finished)
    return [_url(opaque(picture), "PNG" if pixels <= _LOSSLESS else "JPEG") for picture in finished]


def opaque(picture: Image.Image) -> Image.Image:
    """Return a picture as opaque RGB, so that what is delivered is what was judged, on any background."""
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
    """Convert a tensor [3, H, W] with values 0…1 to a picture, truncating to 8 bits as the host does."""
    return Image.fromarray((image.detach().float() * 255).byte().permute(1, 2, 0).cpu().numpy())


def blank(picture: Image.Image) -> Image.Image:
    """Return a grey picture of the same size, to replace a withheld one."""
    return Image.new("RGB", picture.size, _GREY)


def blurred(picture: Image.Image) -> Image.Image:
    """Return a picture blurred beyond recognition."""
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


def acted(picture: Image.Image, action: str, words: str = "") -> Image.Image:
    """Return a picture as an action allows it: ``pass`` unchanged, ``blur`` blurred, any other replaced by grey.

    Args:
        picture: the generated picture.
        action: action of the final look; for a preview, ``withhold`` or ``blur``.
        words: text to write on the grey picture; empty for none.
    """
    if action == "pass":
        return opaque(picture)
    if action == "blur":
        return blurred(picture)
    return written(blank(picture), words) if words else blank(picture)


def written(picture: Image.Image, words: str) -> Image.Image:
    """Write words across the middle of a picture, as large as fits; if too small to read, draw a crossed circle."""
    drawing = ImageDraw.Draw(picture)
    for height in range(max(_SMALLEST, min(48, min(picture.size) // 7)), _SMALLEST - 1, -1):
        font = _font(height)
        for width in range(len(words), 3, -1):
            lines = "\n".join(textwrap.wrap(words, width, break_long_words=False))
            left, top, right, bottom = drawing.multiline_textbbox((0, 0), lines, font=font, align="center")
            if right - left <= 0.92 * picture.width and bottom - top <= 0.8 * picture.height:
                place = ((picture.width - left - right) / 2, (picture.height - top - bottom) / 2)
                drawing.multiline_text(place, lines, font=font, fill=_INK, align="center")
                return picture
    radius, (x, y) = min(picture.size) * 0.3, (picture.width / 2, picture.height / 2)
    line, slant = max(2, round(radius / 5)), radius * 0.7
    drawing.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_INK, width=line)
    drawing.line((x - slant, y - slant, x + slant, y + slant), fill=_INK, width=line)
    return picture


def unchecked(failure: str) -> str:
    """Return the text for a picture that could not be checked, with the reason if it is known.

    Args:
        failure: message of a :class:`ServiceFailed`, which begins with its short name.
    """
    reason = _REASONS.get(failure.partition(":")[0])
    return f"{UNCHECKED} ({reason})" if reason else UNCHECKED


def steered(words: str, step: int) -> str:
    """Return a negative's words with the step after which they steer, as ``words@step``; -1 means from the start."""
    return f"{words}@{step}" if step >= 0 else f"{words} from the start"


def _font(height: int) -> Any:
    """Return Pillow's built-in font in the given height; old versions of Pillow have one size only."""
    try:
        return ImageFont.load_default(height)
    except TypeError:
        return ImageFont.load_default()
