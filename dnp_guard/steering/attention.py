"""Normalised attention guidance (NAG, Chen et al., arXiv 2505.21179): a negative prompt applied inside attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


class NotReached(Exception):
    """A negative prompt could not be applied in attention, since no attention layer that can be steered was reached."""


@dataclass(frozen=True)
class Part:
    """A negative prompt to apply in the attention layers, for some images of the batch.

    Attributes:
        images: batch indices of the images that it steers.
        context: the encoded negative prompt, [1, tokens, width].
        phi: extrapolation factor; this and the next three are arguments of :func:`normalised`.
        tau: largest growth of a feature vector, as a factor.
        alpha: weight of the steered features in the result.
        mask: fraction of the image positions to steer.
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
    """Move the attention output for a prompt away from that for a negative prompt (NAG paper, equations 7 to 10).

    Extrapolate to z~ = phi z+ - (phi - 1) z-. Shorten it to z^, whose L1 norm over the features is at most tau times
    that of z+. Return alpha z^ + (1 - alpha) z+, computed as z+ + alpha (z^ - z+): with phi = 1 or alpha = 0 the
    result is exactly z+.

    Args:
        z_pos: z+, attention output for the user's prompt, before the output projection, [..., D].
        z_neg: z-, attention output for the negative prompt with the same query vectors, [..., D].
        phi: extrapolation factor, 1 or more.
        tau: largest growth of a feature vector's L1 norm, as a factor, 1 or more; broadcastable to [..., 1].
        alpha: weight of z^ in the result, 0 to 1; broadcastable to [..., D].
        mask: fraction of the positions to steer, 0 to 1, but at least one position: those where z+ and z- have the
            highest cosine similarity, because they show the content of the negative prompt. Positions are the last
            dimension but one.
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
    """Return a mask [..., positions, 1]: 1 at the given share of positions, where z+ and z- are most alike, else 0."""
    cosine = F.cosine_similarity(z_pos.float(), z_neg.float(), dim=-1)
    steered = max(1, round(share * cosine.shape[-1]))
    least = cosine.topk(steered, dim=-1).values[..., -1:]
    return (cosine >= least).to(z_pos.dtype).unsqueeze(-1)
