"""Detect glyphs with the independent evaluation detector of the Glyphs world, a small CNN.

The CNN has its own architecture, seed and data, and shares nothing with the vision-language model. The guard never uses
it: the layering check of the project forbids every package of the guard from importing it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dnp_guard.glyphs.scene import COLOURS, FORBIDDEN, PLACES, SHAPES, Glyph

if TYPE_CHECKING:
    from pathlib import Path


class Detector(nn.Module):
    """CNN that scores the shapes, colours and place in images [B, 3, 32, 32] in -1…1."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()

        def block(inward: int, outward: int, stride: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(inward, outward, 3, stride, 1, bias=False), nn.BatchNorm2d(outward), nn.ReLU()
            )

        self.features = nn.Sequential(
            block(3, width, 2),
            block(width, width, 1),
            block(width, 2 * width, 2),
            block(2 * width, 2 * width, 1),
            block(2 * width, 3 * width, 1),
        )
        self.pair = nn.Conv2d(3 * width, len(SHAPES) * len(COLOURS), 1)
        self.shape = nn.Conv2d(3 * width, len(SHAPES), 1)
        self.place = nn.Linear(3 * width, len(PLACES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits per shape [B, 8], per shape and colour [B, 8, 5], and per place [B, 4].

        The logits of shapes and colours are the maximum over the 8x8 map, so the position of a glyph makes no
        difference.
        """
        features = self.features(images)
        shapes = self.shape(features).amax((2, 3))
        pairs = self.pair(features).amax((2, 3)).view(-1, len(SHAPES), len(COLOURS))
        return shapes, pairs, self.place(features.mean((2, 3)))


@dataclass(frozen=True, slots=True)
class Seen:
    """Content of one image: everything to which the detector gives a probability over one half.

    Attributes:
        shapes: shapes in the image.
        glyphs: glyphs in the image, as (colour, shape).
        place: likeliest place.
    """

    shapes: frozenset[str]
    glyphs: frozenset[tuple[str, str]]
    place: str

    @property
    def forbidden(self) -> tuple[str, ...]:
        """Forbidden shapes in the image, in the order of ``FORBIDDEN``."""
        return tuple(shape for shape in FORBIDDEN if shape in self.shapes)

    def shows(self, glyphs: tuple[Glyph, ...]) -> bool:
        """Return whether the image shows all these glyphs in their colours."""
        return all((glyph.colour, glyph.shape) in self.glyphs for glyph in glyphs)


@torch.no_grad()
def detect(detector: Detector, images: Tensor) -> list[Seen]:
    """Detect the content of images, float [B, 3, 32, 32] in -1…1; return one result per image."""
    content = []
    for part in images.split(256):
        shapes, pairs, places = detector(part)
        for shape, pair, place in zip(shapes > 0, pairs > 0, places.argmax(1).tolist(), strict=True):
            content.append(
                Seen(
                    frozenset(name for name, yes in zip(SHAPES, shape.tolist(), strict=True) if yes),
                    frozenset(
                        (colour, name)
                        for name, row in zip(SHAPES, pair.tolist(), strict=True)
                        for colour, yes in zip(COLOURS, row, strict=True)
                        if yes
                    ),
                    PLACES[place],
                )
            )
    return content


def load_detector(folder: Path | None = None) -> Detector:
    """Load the detector from a folder, or the shipped one; its weights are float16, and it computes in float32."""
    from safetensors.torch import load_file  # noqa: PLC0415 (torch stays out of the import of the package)

    from dnp_guard.glyphs import WEIGHTS  # noqa: PLC0415

    detector = Detector()
    saved = load_file((folder or WEIGHTS / "detector") / "model.safetensors")
    detector.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in saved.items()}
    )
    return detector.eval()
