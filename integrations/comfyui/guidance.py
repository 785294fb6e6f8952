"""Compute guided predictions, one function per equation, on tensors [B, ...].

e_u, e_c and e_n are the denoiser's outputs for the unconditional prompt, the user's prompt and the guard's negative
prompt. The equations are linear, so they hold for noise, v and flow predictions alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

_PACKED = 3
"""Number of dimensions of latents that are packed into a sequence of positions, [B, positions, C]."""


def classifier_free(e_u: Tensor, e_c: Tensor, g: float) -> Tensor:
    """Return the guided prediction, e_u + g (e_c - e_u) (Ho and Salimans, arXiv 2207.12598, in the form hosts use)."""
    return e_u + g * (e_c - e_u)


def separate(e_n: Tensor, e_u: Tensor, s: Tensor) -> Tensor:
    """Return the separate negative term, delta = -s (e_n - e_u) (VL-DNP, arXiv 2510.26052).

    Added to the guided prediction, it gives e_u + g (e_c - e_u) - s (e_n - e_u), which leaves the user's negative
    prompt in e_u as it is. If a host runs without guidance, pass its only prediction e_c as e_u.

    Args:
        e_n: prediction for the guard's negative, [B, ...].
        e_u: prediction for the unconditional, [B, ...].
        s: scales, broadcastable to [B, ...].
    """
    return push(e_n - e_u, s)


def push(d: Tensor, s: Tensor) -> Tensor:
    """Return the separate negative term, -s d, from a known difference d = e_n - e_u."""
    return -s * d


def within(delta: Tensor, d: Tensor, share: float, channels: int = 1) -> Tensor:
    """Keep a negative term at the positions where d = e_n - e_u is largest, and set it to zero elsewhere.

    SLD (arXiv 2211.05105) also steers where two predictions differ most, but selects single elements. Here, the size of
    d at a position is its norm over the channels, averaged with the neighbouring positions.

    Args:
        delta: the term, [B, C, ..., h, w], or with C in another place, or packed as [B, positions, C].
        d: the difference, of the same shape.
        share: share of the positions to keep, 0 to 1; at least one is kept.
        channels: index of the dimension C, ignored for packed latents.
    """
    wide = torch.promote_types(d.dtype, torch.float32)  # sums of squares overflow half precision
    packed = d.ndim == _PACKED
    length = torch.linalg.vector_norm(d.to(wide), dim=2 if packed else channels, keepdim=True)
    if not packed:
        planes = length.reshape(-1, 1, *length.shape[-2:])
        length = F.avg_pool2d(planes, 3, 1, 1, count_include_pad=False).view_as(length)
    flat = length.flatten(1)
    count = max(1, round(share * flat.shape[1]))
    least = flat.topk(count, dim=1).values[:, -1]
    return delta * (length >= least.view(-1, *[1] * (length.ndim - 1))).to(delta.dtype)
