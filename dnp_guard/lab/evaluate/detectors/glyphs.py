"""Judge finished images with the embedded detector of Glyphs, the toy world of the embedded models."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch

from dnp_guard.glyphs import WEIGHTS
from dnp_guard.glyphs.scene import COLOURS, FORBIDDEN, SHAPES, SIZE
from dnp_guard.lab.evaluate.detector import load_detector
from dnp_guard.lab.evaluate.detectors.base import Detection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

_HALF = 0.5
_SURE = 0.9


class GlyphsDetector:
    """Detector with the CNN of :mod:`dnp_guard.lab.evaluate.detector`; its categories are the forbidden shapes."""

    name = "glyphs"
    threshold = _HALF
    categories = FORBIDDEN

    def __init__(self) -> None:
        self.network = load_detector()
        weights = (WEIGHTS / "detector" / "model.safetensors").read_bytes()
        self.version = hashlib.sha256(weights).hexdigest()[:12]

    @torch.no_grad()
    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image, with the features before the CNN's heads, [96, 64]."""
        pixels = np.stack([np.asarray(image.convert("RGB").resize((SIZE, SIZE))) for image in images])
        inputs = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        shapes, pairs, _ = self.network(inputs)
        features = self.network.features(inputs).flatten(2).numpy()
        return [
            Detection(
                {name: float(shape[SHAPES.index(name)]) for name in FORBIDDEN},
                frozenset(
                    (colour, name)
                    for name, row in zip(SHAPES, pair.tolist(), strict=True)
                    for colour, logit in zip(COLOURS, row, strict=True)
                    if logit > 0
                ),
                seen,
                _clear(shape, pair.sigmoid().amax(1).tolist()),
            )
            for shape, pair, seen in zip(shapes.sigmoid().tolist(), pairs, features, strict=True)
        ]


def _clear(shapes: Sequence[float], coloured: Sequence[float]) -> bool:
    """Return whether the CNN is sure of every shape: of its absence, or of its presence and of its colour."""
    return all(
        shape <= 1 - _SURE or (shape >= _SURE and colour >= _SURE)
        for shape, colour in zip(shapes, coloured, strict=True)
    )
