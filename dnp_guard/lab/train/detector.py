"""Stage 3: train the independent evaluation detector, on images that no other model is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dnp_guard.glyphs.scene import COLOURS, PLACES, SHAPES, Scene
from dnp_guard.lab.evaluate.detector import Detector
from dnp_guard.lab.train.data import to_float
from dnp_guard.lab.train.loop import Draw, TrainingPlan

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

PLAN = TrainingPlan("evaluation detector", samples=160_000, batch=32, learning_rate=3e-3, seed=77)


def labels(scenes: list[Scene]) -> tuple[Tensor, Tensor]:
    """Return the labels of scenes: 0 or 1 per shape and colour, float [N, 8, 5], and the place's index, int64 [N]."""
    pairs = torch.zeros(len(scenes), len(SHAPES), len(COLOURS))
    colours = list(COLOURS)
    for row, scene in enumerate(scenes):
        for glyph in scene.glyphs:
            pairs[row, SHAPES.index(glyph.shape), colours.index(glyph.colour)] = 1
    return pairs, torch.tensor([PLACES.index(scene.place) for scene in scenes])


class Detect:
    """Training task: classify the glyphs and the place in rendered images, some of them blurred or noised."""

    def __init__(self, data: Path, device: torch.device) -> None:
        saved = torch.load(data, weights_only=True)
        self.images, self.pairs, self.places = saved["images"], saved["pairs"], saved["places"]
        self.model = Detector().to(device=device, memory_format=torch.channels_last)
        self.modules: list[nn.Module] = [self.model]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the binary cross-entropy of shapes and of shapes with colours, plus the cross-entropy of the place."""
        picked = torch.randint(len(self.images), (batch,), generator=draw.torch, device=draw.device).cpu()
        x = degrade(to_float(self.images[picked]), draw).to(draw.device)
        pairs, places = self.pairs[picked].to(draw.device), self.places[picked].to(draw.device)
        shape, pair, place = self.model(x.contiguous(memory_format=torch.channels_last))
        return (
            F.binary_cross_entropy_with_logits(shape, pairs.amax(2))
            + 3 * F.binary_cross_entropy_with_logits(pair, pairs)
            + 0.2 * F.cross_entropy(place, places)
        )


def degrade(images: Tensor, draw: Draw) -> Tensor:
    """Blur a whole batch [B, 3, H, W] with probability 1/4, add noise with probability 2/5, else leave it unchanged."""
    kind = float(draw.numpy.random())
    if kind < 0.25:
        images = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    if kind > 0.6:
        strength = torch.from_numpy(draw.numpy.uniform(0, 0.3, (len(images), 1, 1, 1))).float()
        noise = torch.from_numpy(draw.numpy.standard_normal(images.shape, dtype="float32"))
        images = (images + strength * noise).clamp(-1, 1)
    return images
