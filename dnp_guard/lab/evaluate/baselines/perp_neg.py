"""Perp-Neg (Armandpour et al., arXiv 2304.04968)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def perp_neg(e_u: Tensor, e_c: Tensor, negatives: Sequence[Tensor], g: float, beta: float) -> Tensor:
    """Guide a step, away from those parts of the negatives that are orthogonal to the positive direction.

    e_u + g (D_c - sum_j beta (D_j - <D_j, D_c> / ||D_c||^2 D_c)), where D = e - e_u.

    Args:
        e_u: output of the denoiser for the empty prompt, [B, ...].
        e_c: output of the denoiser for the user's prompt, [B, ...].
        negatives: outputs of the denoiser for the negative prompts, [B, ...].
        g: guidance scale.
        beta: weight of every negative.

    Returns:
        The guided output, [B, ...].
    """
    direction = e_c - e_u
    for e_j in negatives:
        direction = direction - beta * orthogonal(e_j - e_u, e_c, e_u)
    return e_u + g * direction


def orthogonal(delta: Tensor, e_c: Tensor, e_u: Tensor) -> Tensor:
    """Return the part of delta that is orthogonal to the positive direction e_c - e_u, per image; all [B, ...]."""
    wide = torch.promote_types(delta.dtype, torch.float32)  # sums of squares overflow half precision
    direction = (e_c - e_u).flatten(1).to(wide)
    flat = delta.flatten(1).to(wide)
    length = direction.square().sum(1, keepdim=True).clamp_min(1e-12)
    along = (flat * direction).sum(1, keepdim=True) / length
    return (flat - along * direction).view_as(delta).to(delta.dtype)
