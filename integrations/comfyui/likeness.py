"""Compare two predictions, so that a look that would show nothing new can be skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


_OF_PICTURES = 4


def coarse(prediction: Tensor) -> Tensor:
    """Average a prediction [B, C, H, W], or of videos [B, C, F, H, W], over 2x2 latents, [B, C H W / 4]."""
    planes = prediction.flatten(1, -3) if prediction.ndim > _OF_PICTURES else prediction
    return F.avg_pool2d(planes.float(), 2).flatten(1)


def similarity(prediction: Tensor, seen: Tensor | None) -> list[float]:
    """Return the cosine of a prediction with the :func:`coarse` form of another, -1…1 per image; empty if none."""
    if seen is None:
        return []
    # Rounding may take the cosine of equal vectors slightly above 1.
    return torch.cosine_similarity(coarse(prediction), seen).clamp(-1, 1).tolist()
