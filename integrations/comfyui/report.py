"""Report the guard's work on the runs of a workflow, as text and as a sheet of pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .run import Run

_SIDE = (96, 256)
"""Smallest and largest length of the longer side of a picture in the sheet, so that captions and batches fit."""

_GAP, _LINE = 6, 16
_GROUND, _INK, _STEERED = (24, 24, 24), (224, 224, 224), (240, 150, 40)


def summary(runs: Sequence[Run]) -> str:
    """Describe runs in lines of text: the looked-at steps, every image's outcome, and the guard's latest failure."""
    lines = []
    for number, run in enumerate(runs, 1):
        images = f"{run.images} image{'s' * (run.images > 1)}"
        lines.append(f"run {number}: {images}, looked at after steps {sorted(run.timeline)}")
        lines += [f"image {index}: {run.batch.line(index)}{_drawn(run, index)}" for index in range(run.images)]
        lines += [f"latest failure of the guard: {run.batch.failure}"] if run.batch.failure else []
    return "\n".join(lines) or "nothing was generated with this guard yet"


def _drawn(run: Run, index: int) -> str:
    times = run.attempts[index]
    return f" (drawn {times} times)" if times > 1 else ""


def sheet(runs: Sequence[Run]) -> Image.Image:
    """Draw a sheet of the pictures that the guard looked at, and of the delivered pictures in the last column.

    Every run has one row per image and one column per look. A frame marks a picture after which its image was steered.
    """
    parts = [_part(number, run) for number, run in enumerate(runs, 1) if run.timeline]
    width = max((part.width for part in parts), default=_SIDE[0])
    whole = Image.new("RGB", (width, sum(part.height for part in parts) or _SIDE[0]), _GROUND)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height
    return whole


def _part(number: int, run: Run) -> Image.Image:
    steps = sorted(run.timeline)
    columns = [(f"step {step}", run.timeline[step], run.held[step]) for step in steps]
    if run.delivered:
        columns.append(("delivered", run.delivered, frozenset()))
    width, height = _fitting(run.timeline[steps[0]][0].size)
    across, down = width + _GAP, height + _GAP
    part = Image.new("RGB", (_GAP + across * len(columns), 2 * _LINE + _GAP + down * run.images), _GROUND)
    draw, font = ImageDraw.Draw(part), ImageFont.load_default()
    draw.text((_GAP, 2), f"run {number}", fill=_INK, font=font)
    for column, (caption, pictures, held) in enumerate(columns):
        left = _GAP + across * column
        draw.text((left, _LINE + 2), caption, fill=_INK, font=font)
        for row, picture in enumerate(pictures):
            top = 2 * _LINE + _GAP + down * row
            if row in held:
                frame = (left - _GAP // 2, top - _GAP // 2, left + width + _GAP // 2 - 1, top + height + _GAP // 2 - 1)
                draw.rectangle(frame, fill=_STEERED)
            part.paste(picture.convert("RGB").resize((width, height)), (left, top))
    return part


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """Scale the size of a picture to the limits :data:`_SIDE` of the sheet."""
    scale = min(max(*size, _SIDE[0]), _SIDE[1]) / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
