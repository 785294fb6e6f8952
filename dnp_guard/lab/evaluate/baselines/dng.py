"""Dynamic Negative Guidance (Koulischer et al., arXiv 2410.14398)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

LEAST, MOST = 1e-3, 0.99
"""Bounds of the posterior: at 0 it could never rise again, and at 1 the scale would be infinite."""


def dng(e_b: Tensor, e_n: Tensor, e_u: Tensor, p: Tensor, lambda_0: float) -> Tensor:
    """Guide a step away from a negative prompt: the likelier the image shows it, the further.

    e = e_b - lambda_t (e_n - e_u), lambda_t = lambda_0 p_t / (1 - p_t): the score of "not n" by Bayes' rule.

    Args:
        e_b: guided output before this term, [B, ...]; e_u if nothing else guides.
        e_n: output of the denoiser for the negative prompt, [B, ...].
        e_u: output of the denoiser for the empty prompt, [B, ...].
        p: posterior p(n | x_t) per image, [B], below 1.
        lambda_0: the scale.

    Returns:
        The guided output, [B, ...].
    """
    lambda_t = lambda_0 * p / (1 - p)
    return e_b - lambda_t.view(-1, *[1] * (e_b.ndim - 1)) * (e_n - e_u)


def posterior(p: Tensor, x: Tensor, mu_n: Tensor, mu_u: Tensor, sigma: float) -> Tensor:
    """Update the posterior p(n | x) of the negative prompt n, after a stochastic step of the Markov chain sampled x.

    p' = p N(x; mu_n, sigma^2) / N(x; mu_u, sigma^2), so that
    log p' = log p - (||x - mu_n||^2 - ||x - mu_u||^2) / (2 sigma^2).

    Args:
        p: posterior p(n | x_t) per image, [B].
        x: x_{t-1} that the step sampled, [B, ...].
        mu_n: mean of x_{t-1} under the negative prompt, [B, ...].
        mu_u: mean of x_{t-1} under the empty prompt, [B, ...].
        sigma: standard deviation of x_{t-1}.

    Returns:
        The posterior p(n | x_{t-1}) per image, [B], between :data:`LEAST` and :data:`MOST`.
    """
    further = (x - mu_n).flatten(1).square().sum(1) - (x - mu_u).flatten(1).square().sum(1)
    log_p = p.log() - further / (2 * sigma**2)
    return log_p.clamp(math.log(LEAST), math.log(MOST)).exp()
