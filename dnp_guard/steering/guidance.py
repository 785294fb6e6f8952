"""The arithmetic of guidance, one function an equation. Tensors [B, ...], batch first.

e_u, e_c, e_n are the denoiser's outputs for the unconditional, the user's and the negative prompt. The equations are
linear, so they hold for noise, v and flow predictions alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def classifier_free(e_u: Tensor, e_c: Tensor, g: float) -> Tensor:
    """Classifier-free guidance, e_u + g (e_c - e_u) (Ho and Salimans, arXiv 2207.12598, in the form hosts use)."""
    return e_u + g * (e_c - e_u)


def separate(e_n: Tensor, e_u: Tensor, s: Tensor) -> Tensor:
    """The separate negative term, delta = -s (e_n - e_u) (VL-DNP, arXiv 2510.26052).

    Added to the guided prediction it gives e_u + g (e_c - e_u) - s (e_n - e_u); the unconditional is kept. Where a host
    runs without guidance, its only prediction e_c stands in for e_u.

    Args:
        e_n: [B, ...].
        e_u: [B, ...].
        s: scales, broadcastable to [B, ...].
    """
    return -s * (e_n - e_u)


def orthogonal(delta: Tensor, e_c: Tensor, e_u: Tensor) -> Tensor:
    """The part of delta orthogonal to the positive direction e_c - e_u, per image (Perp-Neg, arXiv 2304.04968)."""
    wide = torch.promote_types(delta.dtype, torch.float32)  # sums of squares overflow half precision
    direction = (e_c - e_u).flatten(1).to(wide)
    flat = delta.flatten(1).to(wide)
    length = direction.square().sum(1, keepdim=True).clamp_min(1e-12)
    along = (flat * direction).sum(1, keepdim=True) / length
    return (flat - along * direction).view_as(delta).to(delta.dtype)
