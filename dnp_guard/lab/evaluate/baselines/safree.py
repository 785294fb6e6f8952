"""SAFREE (Yoon et al., arXiv 2410.12761), implemented from the equations of the paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

ALPHA = 0.01
"""alpha: tolerance within which a token stays, relative to the mean distance of the other tokens."""


def projector(vectors: Tensor) -> Tensor:
    """Return the projector P = C (C^T C)^+ C^T onto the span of k vectors, the columns of C.

    Args:
        vectors: the vectors as rows, [k, D].

    Returns:
        The projector, [D, D].
    """
    c = vectors.T
    return c @ torch.linalg.pinv(c.T @ c, hermitian=True) @ c.T


def kept(p_c: Tensor, masked: Tensor, alpha: float = ALPHA) -> Tensor:
    """Return a mask of the tokens of a prompt that are far enough from the forbidden concepts to stay unchanged.

    The pooled embedding of the prompt without token i is p_i, and its distance from the concepts is
    d_i = ||(I - P_C) p_i||. The distance grows if the masked token belongs to a concept. Token i stays if
    d_i < (1 + alpha) mean_{j != i} d_j.

    Args:
        p_c: projector onto the concepts, [D, D].
        masked: p_i of all tokens, [n, D].
        alpha: the tolerance.

    Returns:
        Mask of the tokens that stay, bool [n].
    """
    d = (masked - masked @ p_c).norm(dim=1)
    others = (d.sum() - d) / max(len(d) - 1, 1)
    return (d < (1 + alpha) * others) if len(d) > 1 else torch.ones(len(d), dtype=torch.bool, device=d.device)


def projected(p_c: Tensor, p_i: Tensor, embeddings: Tensor) -> Tensor:
    """Project tokens into the prompt's own subspace and away from the concepts: (I - P_C) P_I e_i.

    Args:
        p_c: projector onto the concepts, [D, D].
        p_i: projector onto the masked prompts, [D, D].
        embeddings: e_i of all tokens, [n, D].

    Returns:
        The projected embeddings, [n, D].
    """
    inside = embeddings @ p_i
    return inside - inside @ p_c


def cosine(before: Tensor, away: Tensor) -> float:
    """Return the mean cosine between a prompt's token embeddings and their projections, whether these are used or not.

    Args:
        before: e_i of the tokens, the begin and end tokens included, [n, D].
        away: their projections (I - P_C) P_I e_i, [n, D].
    """
    return float(torch.cosine_similarity(before, away, dim=1).mean())


def last_step(mean_cosine: float) -> int:
    """Return the last of 50 steps at which the projected embeddings are used, by the paper's self-validating filter.

    beta = 1 - mean cos; t' = round(10 sigmoid(5 (10 beta - 5.333))).

    Args:
        mean_cosine: mean cosine of the prompt's embeddings and their projections, from :func:`cosine`.
    """
    beta = 1 - mean_cosine
    return round(10 / (1 + math.exp(-5 * (10 * beta - 5.333))))
