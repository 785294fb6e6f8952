"""Provide a backend, ``brightness:FLOOR``, from a third-party package, as an example of a plugin."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from PIL import ImageStat

from dnp_guard import hookimpl
from dnp_guard.errors import VlmUnavailable
from dnp_guard.vlm import Backend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class Brightness(Backend):
    """A backend whose probability of yes grows with the brightness of a picture, in a measure set by the question.

    Args:
        floor: smallest probability to answer.
    """

    name = "brightness"
    revision = "1.0.0"

    def __init__(self, floor: float) -> None:
        self.floor = floor

    def ask(self, images: Sequence[Image], questions: Sequence[str]) -> list[list[float]]:
        lightness = [ImageStat.Stat(image.convert("L")).mean[0] / 255 for image in images]
        weights = [0.5 + sha256(question.encode()).digest()[0] / 510 for question in questions]
        return [[max(self.floor, light * weight) for weight in weights] for light in lightness]


@hookimpl
def dnp_guard_vlm(spec: str) -> Brightness | None:
    kind, _, floor = spec.partition(":")
    if kind != "brightness":
        return None
    try:
        return Brightness(float(floor))
    except ValueError as error:
        raise VlmUnavailable(f"{floor!r} is no number", hint="Write brightness:0.1.") from error
