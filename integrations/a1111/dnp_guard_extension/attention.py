"""Normalised attention guidance (NAG, Chen et al., arXiv 2505.21179): steering inside the attention over the prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from torch import Tensor


class NotReached(Exception):
    """A network did not read its prompt in any layer that can be steered."""


@dataclass(frozen=True)
class Part:
    """A negative in the attention over the prompt of some images.

    Attributes:
        images: indices of the images that it steers.
        context: its conditioning, [1, tokens, width].
        phi: factor of the extrapolation.
        tau: largest growth of a feature vector, as a factor.
        alpha: share of the steered features.
        mask: share of the positions to steer.
    """

    images: tuple[int, ...]
    context: Tensor
    phi: float
    tau: float
    alpha: float
    mask: float = 1.0


def normalised(
    z_pos: Tensor, z_neg: Tensor, phi: float, tau: float, alpha: float | Tensor, mask: float = 1.0
) -> Tensor:
    """Move the output of an attention over the prompt away from a negative (equations 7 to 10).

    z~ = phi z+ - (phi - 1) z-, its L1 norm over the features at most tau times that of z+, mixed as
    alpha z^ + (1 - alpha) z+. Written as z+ + alpha (z^ - z+), so that phi = 1 or alpha = 0 leaves every bit of z+.

    Args:
        z_pos: z+, output for the user's prompt before the output projection, [..., D].
        z_neg: z-, output for the negative with the same queries, [..., D].
        phi: factor of the extrapolation, 1 or more.
        tau: largest growth of a feature vector's L1 norm, as a factor, 1 or more.
        alpha: share of the steered features, 0 to 1; broadcastable to [..., D].
        mask: share of the positions to steer, 0 to 1: those at which z+ and z- are most alike by their cosine, which
            show the content of the negative; one at least. Positions are the last dimension but one.
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
    """Return 1 at the share of the positions where two outputs are most alike, 0 elsewhere, [..., positions, 1]."""
    cosine = F.cosine_similarity(z_pos.float(), z_neg.float(), dim=-1)
    steered = max(1, round(share * cosine.shape[-1]))
    least = cosine.topk(steered, dim=-1).values[..., -1:]
    return (cosine >= least).to(z_pos.dtype).unsqueeze(-1)
