"""Stage 1: train the autoencoder, which maps images [B, 3, 32, 32] to latents [B, 8, 8, 8]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from dnp_guard.lab.train.data import to_float
from dnp_guard.lab.train.loop import Draw, TrainingPlan
from dnp_guard.lab.world import models

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

PLAN = TrainingPlan("autoencoder", samples=72_000, batch=16, learning_rate=2e-3, seed=11, weight_decay=1e-4)


class Autoencode:
    """Training task: reconstruct rendered images. A pixel near an edge weighs four times as much as any other."""

    def __init__(self, images: Path, device: torch.device) -> None:
        self.images = torch.load(images, weights_only=True)["images"]
        self.model = models.autoencoder().to(device=device, memory_format=torch.channels_last)
        self.modules: list[nn.Module] = [self.model]

    def loss(self, draw: Draw, batch: int) -> Tensor:
        """Return the weighted L1 + L2 error of images decoded from noised latents, plus a small penalty on latents."""
        picked = torch.randint(len(self.images), (batch,), generator=draw.torch, device=draw.device)
        x = to_float(self.images[picked.cpu()]).to(draw.device).contiguous(memory_format=torch.channels_last)
        z = self.model.encode(x).latents
        noise = torch.randn(z.shape, generator=draw.torch, device=draw.device)
        error = self.model.decode(z + 0.1 * noise).sample - x
        edges = (x - F.avg_pool2d(x, 9, 1, 4)).abs().amax(1, keepdim=True) > 0.25
        return ((1 + 3 * edges.float()) * (error.abs() + error.square())).mean() + 2e-3 * z.square().mean()


@torch.no_grad()
def encode(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """Encode images, uint8 [N, 3, 32, 32], to unscaled latents, float32 [N, 8, 8, 8] on the CPU."""
    return torch.cat([model.encode(to_float(part).to(device)).latents.cpu() for part in images.split(250)])
