"""SAFREE (Yoon et al., arXiv 2410.12761), from its equations."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = 0.01
"""How much farther than the others a token may lie from the concepts' complement and stay."""


def projector(vectors: Tensor) -> Tensor:
    """P = C (C^T C)^+ C^T onto the span of k vectors, the columns of C.

    Args:
        vectors: [k, D].

    Returns:
        [D, D].
    """
    c = vectors.T
    return c @ torch.linalg.pinv(c.T @ c, hermitian=True) @ c.T


def kept(p_c: Tensor, masked: Tensor, alpha: float = ALPHA) -> Tensor:
    """Which tokens of a prompt are far enough from the concepts to stay.

    d_i = ||(I - P_C) p_i||, where p_i is the prompt's pooled embedding without token i: it grows when a token of the
    concept is left out. Token i stays if d_i < (1 + alpha) mean_{j != i} d_j.

    Args:
        p_c: the projector onto the concepts, [D, D].
        masked: p_i, [n, D].
        alpha: the tolerance.

    Returns:
        [n], bool.
    """
    d = (masked - masked @ p_c).norm(dim=1)
    others = (d.sum() - d) / max(len(d) - 1, 1)
    return (d < (1 + alpha) * others) if len(d) > 1 else torch.ones(len(d), dtype=torch.bool, device=d.device)


def projected(p_c: Tensor, p_i: Tensor, embeddings: Tensor) -> Tensor:
    """(I - P_C) P_I e_i: what is left of tokens, inside the prompt's own subspace, without the concepts.

    Args:
        p_c: the projector onto the concepts, [D, D].
        p_i: the projector onto the masked prompts, [D, D].
        embeddings: e_i, [n, D].

    Returns:
        [n, D].
    """
    inside = embeddings @ p_i
    return inside - inside @ p_c


def cosine(before: Tensor, away: Tensor) -> float:
    """Average the cosines of a prompt's embeddings and of their projections, whichever of these are used.

    Args:
        before: e_i, of the tokens and of the marks of beginning and end, [n, D].
        away: (I - P_C) P_I e_i, of all of them, [n, D].
    """
    return float(torch.cosine_similarity(before, away, dim=1).mean())


def last_step(mean_cosine: float) -> int:
    """The self-validating filter: up to which step, of 50, the projected embeddings are used.

    beta = 1 - mean cos; t' = round(10 sigmoid(5 (10 beta - 5.333))).

    Args:
        mean_cosine: of the prompt's embeddings and of their projections.
    """
    beta = 1 - mean_cosine
    return round(10 / (1 + math.exp(-5 * (10 * beta - 5.333))))
