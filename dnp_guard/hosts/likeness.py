"""Compare two predictions of an image, so that no query is spent on a prediction that has hardly changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


_OF_PICTURES = 4


def coarse(prediction: Tensor) -> Tensor:
    """Average predicted latents, [B, C, H, W] or [B, C, F, H, W], over squares of 2x2; return one row per image."""
    planes = prediction.flatten(1, -3) if prediction.ndim > _OF_PICTURES else prediction
    return F.avg_pool2d(planes.float(), 2).flatten(1)


def similarity(prediction: Tensor, seen: Tensor | None) -> list[float]:
    """Return the cosine similarity of a prediction to an earlier one, -1…1 per image.

    Args:
        prediction: predicted latents, [B, C, H, W] or [B, C, F, H, W].
        seen: earlier prediction, as :func:`coarse` returns it; without one the result is empty.
    """
    if seen is None:
        return []
    # Rounding may take the cosine of equal vectors slightly above 1.
    return torch.cosine_similarity(coarse(prediction), seen).clamp(-1, 1).tolist()
