"""Compare the predicted images of two steps, so that the guard need not look at one that has hardly changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


_OF_PICTURES = 4


def coarse(prediction: Tensor) -> Tensor:
    """Average predicted latents over 2x2 positions, and flatten them per image.

    Args:
        prediction: latents of images, [B, C, H, W], or of videos with F frames, [B, C, F, H, W].

    Returns:
        The averages, [B, C H W / 4] or [B, C F H W / 4].
    """
    planes = prediction.flatten(1, -3) if prediction.ndim > _OF_PICTURES else prediction
    return F.avg_pool2d(planes.float(), 2).flatten(1)


def similarity(prediction: Tensor, seen: Tensor | None) -> list[float]:
    """Return the cosine similarity, -1…1 per image, of a prediction to an earlier one; empty without an earlier one.

    Args:
        prediction: predicted latents, as for :func:`coarse`.
        seen: result of :func:`coarse` for the earlier prediction.
    """
    if seen is None:
        return []
    # Rounding may take the cosine of equal vectors slightly above 1.
    return torch.cosine_similarity(coarse(prediction), seen).clamp(-1, 1).tolist()
