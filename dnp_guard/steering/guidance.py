"""The arithmetic of guidance, one function per equation. Tensors [B, ...], batch first.

e_u, e_c, e_n are the denoiser's outputs for the unconditional, the user's and the negative prompt. The equations are
linear, so they hold for noise, v and flow predictions alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor

_PACKED = 3
"""Number of dimensions of latents that are packed into a sequence of positions."""


def classifier_free(e_u: Tensor, e_c: Tensor, g: float) -> Tensor:
    """Apply classifier-free guidance, e_u + g (e_c - e_u); g = 1 is none (Ho and Salimans, arXiv 2207.12598)."""
    return e_u + g * (e_c - e_u)


def separate(e_n: Tensor, e_u: Tensor, s: Tensor) -> Tensor:
    """Return the separate negative term, delta = -s (e_n - e_u) (VL-DNP, arXiv 2510.26052).

    The guided prediction plus delta is e_u + g (e_c - e_u) - s (e_n - e_u). In a pipeline that runs without guidance,
    the only prediction e_c takes the place of e_u.

    Args:
        e_n: output for the negative prompt, [B, ...].
        e_u: output for the unconditional prompt, [B, ...].
        s: scales, broadcastable to [B, ...].
    """
    return push(e_n - e_u, s)


def push(d: Tensor, s: Tensor) -> Tensor:
    """Return the separate negative term -s d for a known difference d = e_n - e_u."""
    return -s * d


def within(delta: Tensor, d: Tensor, share: float, channels: int = 1) -> Tensor:
    """Keep delta at the positions where d = e_n - e_u is largest, and set it to zero elsewhere, to steer only there.

    SLD (arXiv 2211.05105) steers where the difference of two predictions is large, element by element; here a position
    is weighed by the length of d over its channels, averaged with its neighbours.

    Args:
        delta: the negative term, [B, C, ..., h, w] or with C in another dimension, or packed, [B, positions, C].
        d: the difference e_n - e_u, in the shape of delta.
        share: fraction of the positions to keep, 0 to 1; at least one position is kept.
        channels: index of the dimension C; ignored if packed.
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
