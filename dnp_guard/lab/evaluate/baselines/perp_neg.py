"""Perp-Neg (Armandpour et al., arXiv 2304.04968)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.steering.guidance import orthogonal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def perp_neg(e_u: Tensor, e_c: Tensor, negatives: Sequence[Tensor], g: float, beta: float) -> Tensor:
    """Guide a step, leaving of each negative only what is orthogonal to the positive direction.

    e_u + g (D_c - sum_j beta (D_j - <D_j, D_c> / ||D_c||^2 D_c)), where D = e - e_u.

    Args:
        e_u: the denoiser's output for the empty prompt, [B, ...].
        e_c: for the user's prompt, [B, ...].
        negatives: for each negative prompt, [B, ...].
        g: the guidance scale.
        beta: the weight of every negative.
    """
    direction = e_c - e_u
    for e_j in negatives:
        direction = direction - beta * orthogonal(e_j - e_u, e_c, e_u)
    return e_u + g * direction
