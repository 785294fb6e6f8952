"""The picture that replaces a withheld image: it says so in words, or by a crossed circle if no words fit."""

from __future__ import annotations

import os
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dnp_guard.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dnp_guard.policy.model.policy import Policy

_GREY: Final = (128, 128, 128)
_INK: Final = (255, 255, 255)
_PLATE: Final = (64, 64, 64)
_SMALLEST: Final = 9
"""Smallest readable height of letters, in pixels."""

_WORDS: Final[Mapping[Outcome, str]] = {
    Outcome.BLOCKED: "Image withheld",
    Outcome.FAILED_CLOSED: "Image withheld: it could not be checked",
}


def words(policy: Policy, outcome: Outcome) -> str:
    """Return the text that a person reads in place of a withheld image.

    Args:
        policy: the policy in force.
        outcome: outcome of the image.

    Returns:
        The policy's own text in this process's language, or the default; empty if the image is not withheld.
    """
    if not outcome.withholds:
        return ""
    own = policy.withheld.words(locale()) if policy.withheld is not None else ""
    return own or _WORDS[outcome]


def locale() -> str:
    """Return the user's language, such as ``de-CH``, from ``DNP_GUARD_LOCALE`` or the usual variables."""
    named = ("DNP_GUARD_LOCALE", "LC_ALL", "LC_MESSAGES", "LANG")
    value = next((value for name in named if (value := os.environ.get(name))), "")
    return value.partition(".")[0].partition("@")[0].replace("_", "-")


def cover(
    policy: Policy, outcome: Outcome, size: tuple[int, int], under: Callable[[], Image.Image] | None = None
) -> Image.Image:
    """Return the picture to deliver in place of a withheld image.

    Args:
        policy: the policy in force.
        outcome: outcome of the image.
        size: width and height in pixels.
        under: returns the withheld image. It is put behind the words, blurred beyond recognition, if the policy says
            so, the image is withheld for its content, and no category of the policy is sensitive.
    """
    blurs = policy.withheld is not None and policy.withheld.style == "blur" and outcome is Outcome.BLOCKED
    secret = any(category.sensitive for category in policy.categories)
    shown = blurred(under()) if under is not None and blurs and not secret else blank(size)
    return written(shown, words(policy, outcome))


def blank(size: tuple[int, int]) -> Image.Image:
    """Return a grey picture of a width and height in pixels."""
    return Image.new("RGB", size, _GREY)


def blurred(picture: Image.Image) -> Image.Image:
    """Blur a picture beyond recognition, and drop its transparency, in which content could hide."""
    return picture.convert("RGB").filter(ImageFilter.GaussianBlur(max(picture.size) / 8))


def written(picture: Image.Image, text: str) -> Image.Image:
    """Write a text in the middle of a picture, as large as it fits; draw a crossed circle if no readable size fits."""
    drawing = ImageDraw.Draw(picture)
    for lines, font in _settings(picture.size, text):
        box = drawing.multiline_textbbox((0, 0), lines, font=font, align="center", spacing=2)
        width, height = box[2] - box[0], box[3] - box[1]
        if width <= 0.92 * picture.width and height <= 0.8 * picture.height:
            left, top = (picture.width - width) / 2, (picture.height - height) / 2
            edge = max(1, picture.height // 64)
            plate = (left - 2 * edge, top - 2 * edge, left + width + 2 * edge, top + height + 2 * edge)
            drawing.rectangle(plate, fill=_PLATE)
            place = (left - box[0], top - box[1])
            drawing.multiline_text(place, lines, font=font, fill=_INK, align="center", spacing=2)
            return picture
    return _signed(picture)


def _settings(size: tuple[int, int], text: str) -> Iterator[tuple[str, Any]]:
    """Yield ways to set a text, as wrapped text and font: from large letters to small, from few lines to many."""
    largest = max(_SMALLEST, min(48, min(size) // 7))
    for height in range(largest, _SMALLEST - 1, -1):
        font = _font(height)
        if font is None or not _can_write(font, text):
            return
        for lines in range(1, 7):
            yield textwrap.fill(text, max(4, -(-len(text) // lines) + 2), break_long_words=False), font


def _font(height: int) -> Any:
    """Return Pillow's default font at a height in pixels; None if this Pillow has no scalable font."""
    try:
        return ImageFont.load_default(height)
    except (ImportError, OSError, TypeError):
        return None


def _can_write(font: Any, text: str) -> bool:
    """Return whether a font has a glyph for every letter of a text."""
    return not any(bytes(font.getmask(letter)) == _missing(font) for letter in set(text) if not letter.isspace())


@cache
def _missing(font: Any) -> bytes:
    """Return the bitmap that a font draws for a letter that it lacks."""
    return bytes(font.getmask("\U0010fffd"))


def _signed(picture: Image.Image) -> Image.Image:
    """Draw a crossed circle into the middle of a picture, as a sign that the image is withheld."""
    drawing = ImageDraw.Draw(picture)
    radius = min(picture.size) * 0.3
    x, y = picture.width / 2, picture.height / 2
    line = max(2, round(radius / 5))
    drawing.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_INK, width=line)
    slant = radius * 0.7
    drawing.line((x - slant, y - slant, x + slant, y + slant), fill=_INK, width=line)
    return picture
