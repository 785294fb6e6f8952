"""Steer a prediction away from a negative prompt inside the cross-attention, where the network reads the prompt.

The method is normalised attention guidance (NAG, Chen et al., arXiv 2505.21179).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


class NotReached(Exception):
    """The network has no cross-attention layer that can be steered, or did not run one."""


@dataclass(frozen=True)
class Part:
    """An encoded negative, the images that it steers, and the parameters of :func:`normalised` for it.

    Attributes:
        images: indices of the images that it steers.
        context: conditioning of the negative's words, [1, tokens, width].
        phi: how far to extrapolate away from the negative; 1 changes nothing.
        tau: largest growth of a feature vector, as a factor.
        alpha: share of the steered features in the mix with the original ones, 0 to 1.
        mask: share of the image positions to steer, 0 to 1.
    """

    images: tuple[int, ...]
    context: Tensor
    phi: float
    tau: float
    alpha: float
    mask: float = 1.0


def normalised(
    z_pos: Tensor, z_neg: Tensor, phi: float, tau: float | Tensor, alpha: float | Tensor, mask: float = 1.0
) -> Tensor:
    """Move the output of a cross-attention over the prompt away from a negative (equations 7 to 10).

    Extrapolate to z~ = phi z+ - (phi - 1) z-; shorten z~ to z^, whose L1 norm over the features is at most tau times
    that of z+; and mix them as alpha z^ + (1 - alpha) z+. The code computes z+ + alpha (z^ - z+), so that phi = 1 or
    alpha = 0 returns z+ bit for bit.

    Args:
        z_pos: z+, output for the user's prompt before the output projection, [..., positions, D].
        z_neg: z-, output for the negative with the same queries, [..., positions, D].
        phi: factor of the extrapolation, 1 or more.
        tau: largest growth of a feature vector's L1 norm, as a factor, 1 or more; broadcastable to [..., 1].
        alpha: share of the steered features in the mix, 0 to 1; broadcastable to [..., positions, D].
        mask: share of the positions to steer, 0 to 1, and at least one position: those where z+ and z- have the
            highest cosine similarity, because they show the content of the negative.
    """
    if mask < 1:
        alpha = alpha * _alike(z_pos, z_neg, mask)
    extrapolated = phi * z_pos - (phi - 1) * z_neg
    wide = torch.promote_types(z_pos.dtype, torch.float32)  # sums of many features overflow half precision
    long, length = (z.to(wide).abs().sum(-1, keepdim=True) for z in (extrapolated, z_pos))
    bound = tau * length
    shortened = torch.where(long > bound, bound / long, torch.ones_like(long)).to(z_pos.dtype)
    return z_pos + alpha * (extrapolated * shortened - z_pos)


def _alike(z_pos: Tensor, z_neg: Tensor, share: float) -> Tensor:
    """Return a mask, [..., positions, 1], of 1 at the share of positions where the outputs are most alike, else 0."""
    cosine = F.cosine_similarity(z_pos.float(), z_neg.float(), dim=-1)
    steered = max(1, round(share * cosine.shape[-1]))
    least = cosine.topk(steered, dim=-1).values[..., -1:]
    return (cosine >= least).to(z_pos.dtype).unsqueeze(-1)
