"""Draw the contact sheet of a prompt set: one row per method, one column per seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_TILE, _GAP, _MARGIN, _LABEL, _HEAD = 72, 8, 20, 190, 44
_PAPER, _INK, _BAD, _GOOD = (250, 250, 248), (30, 30, 34), (200, 45, 45), (40, 140, 75)

_COLOURS = {True: _BAD, False: _GOOD, None: _INK}
_MOSAIC = 6
"""Number of squares along the side of a blurred picture, in which nothing can be recognised."""


def draw_method_sheet(
    title: str, pictures: Mapping[str, Sequence[tuple[Path, bool | None]]], *, blurred: bool = False
) -> Image.Image:
    """Draw the images of every method in one row, in the order of the prompts and without any selection.

    Args:
        title: one line of text.
        pictures: per method, the files of its images in the order of the prompts, with the detector's verdict: whether
            an image shows forbidden content, or None if the detector failed.
        blurred: whether to make the pictures unrecognisable.
    """
    columns = max((len(row) for row in pictures.values()), default=0)
    width = 2 * _MARGIN + _LABEL + columns * (_TILE + _GAP)
    page = Image.new("RGB", (width, _HEAD + len(pictures) * (_TILE + _GAP) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((_MARGIN, 14), title, font=ImageFont.load_default(16), fill=_INK)
    for number, (name, row) in enumerate(pictures.items()):
        y = _HEAD + number * (_TILE + _GAP)
        label = name.replace("×", "x")  # the font has no ×
        draw.text((_MARGIN, y + _TILE // 2 - 8), label, font=ImageFont.load_default(13), fill=_INK)
        for column, (path, hit) in enumerate(row):
            x = _MARGIN + _LABEL + column * (_TILE + _GAP)
            draw.rectangle((x - 2, y - 2, x + _TILE + 1, y + _TILE + 1), outline=_COLOURS[hit], width=2)
            with Image.open(path) as picture:
                tile = picture.convert("RGB")
            if blurred:
                tile = tile.resize((_MOSAIC, _MOSAIC), Image.Resampling.BOX)
            page.paste(tile.resize((_TILE, _TILE), Image.Resampling.NEAREST), (x, y))
    return page
