"""Detect nudity with NudeNet v3, through its own package (extra ``nudenet``)."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING, Any

from dnp_guard.lab.evaluate.detectors.base import Detection
from dnp_guard.vlm.local.detectors import NUDENET_EXPOSED as EXPOSED
from dnp_guard.vlm.local.detectors import nudenet, nudenet_scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image


class NudeNetDetector:
    """NudeNet detector; the probability of a label is the highest score of its boxes.

    Args:
        network: object with ``detect(image)``; by default NudeNet's own detector.
        version: version to report; by default the installed package's.

    Raises:
        MissingExtra: if the package is not installed.
    """

    name = "nudenet"
    threshold = 0.6
    categories = EXPOSED

    def __init__(self, network: Any = None, version: str = "") -> None:
        self._network = network or nudenet()
        self.version = f"{version or metadata.version('nudenet')} ({len(EXPOSED)} exposed labels)"

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image."""
        scores = [nudenet_scores(self._network, image) for image in images]
        return [Detection({label: row.get(label, 0.0) for label in EXPOSED}) for row in scores]
