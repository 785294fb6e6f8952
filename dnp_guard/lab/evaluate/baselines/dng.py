"""Dynamic Negative Guidance (Koulischer et al., arXiv 2410.14398)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEAST, MOST = 1e-3, 0.99
"""What a posterior is kept within: from 0 it would never rise again, and at 1 the scale has no end."""


def dng(e_b: Tensor, e_n: Tensor, e_u: Tensor, p: Tensor, lambda_0: float) -> Tensor:
    """Guide a step away from a negative prompt as far as the image is likely to be of it.

    e = e_b - lambda_t (e_n - e_u), lambda_t = lambda_0 p_t / (1 - p_t): the score of "not n" by Bayes' rule.

    Args:
        e_b: the guided output to begin with, [B, ...]; e_u itself where nothing else guides.
        e_n: the denoiser's output for the negative prompt, [B, ...].
        e_u: for the empty prompt, [B, ...].
        p: the posterior p(n | x_t) of each image, [B], below 1.
        lambda_0: the scale.
    """
    lambda_t = lambda_0 * p / (1 - p)
    return e_b - lambda_t.view(-1, *[1] * (e_b.ndim - 1)) * (e_n - e_u)


def posterior(p: Tensor, x: Tensor, mu_n: Tensor, mu_u: Tensor, sigma: float) -> Tensor:
    """Update p(n | x) along the Markov chain, after a stochastic step has drawn x.

    p' = p N(x; mu_n, sigma^2) / N(x; mu_u, sigma^2), so that
    log p' = log p - (||x - mu_n||^2 - ||x - mu_u||^2) / (2 sigma^2).

    Args:
        p: p(n | x_t) of each image, [B].
        x: x_{t-1} as it was drawn, [B, ...].
        mu_n: its mean under the negative prompt, [B, ...].
        mu_u: its mean under the empty prompt, [B, ...].
        sigma: its standard deviation.
    """
    further = (x - mu_n).flatten(1).square().sum(1) - (x - mu_u).flatten(1).square().sum(1)
    log_p = p.log() - further / (2 * sigma**2)
    return log_p.clamp(math.log(LEAST), math.log(MOST)).exp()
