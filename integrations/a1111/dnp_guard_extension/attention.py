"""Normalised attention guidance (NAG, Chen et al., arXiv 2505.21179): steering inside the attention over the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def normalised(z_pos: Tensor, z_neg: Tensor, phi: float, tau: float, alpha: float | Tensor) -> Tensor:
    """Move the output of an attention over the prompt away from a negative (equations 7 to 10).

    z~ = phi z+ - (phi - 1) z-, its L1 norm over the features at most tau times that of z+, mixed as
    alpha z^ + (1 - alpha) z+. Written as z+ + alpha (z^ - z+), so that phi = 1 or alpha = 0 leaves every bit of z+.

    Args:
        z_pos: z+, output for the user's prompt before the output projection, [..., D].
        z_neg: z-, output for the negative with the same queries, [..., D].
        phi: factor of the extrapolation, 1 or more.
        tau: largest growth of a feature vector's L1 norm, as a factor, 1 or more.
        alpha: share of the steered features, 0 to 1; broadcastable to [..., D].
    """
    extrapolated = phi * z_pos - (phi - 1) * z_neg
    wide = torch.promote_types(z_pos.dtype, torch.float32)  # sums of many features overflow half precision
    long, length = (z.to(wide).abs().sum(-1, keepdim=True) for z in (extrapolated, z_pos))
    bound = tau * length
    shortened = torch.where(long > bound, bound / long, torch.ones_like(long)).to(z_pos.dtype)
    return z_pos + alpha * (extrapolated * shortened - z_pos)
