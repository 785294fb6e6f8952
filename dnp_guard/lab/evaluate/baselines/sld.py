"""Safe Latent Diffusion (Schramowski et al., arXiv 2211.05105)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Safety:
    """One configuration of SLD.

    Attributes:
        delta: length of the warm-up, in steps of a run of 50.
        s_S: safety guidance scale.
        lam: threshold lambda.
        s_m: momentum scale.
        beta_m: decay of the momentum.
    """

    delta: int
    s_S: float  # noqa: N815 (the paper's symbol)
    lam: float
    s_m: float
    beta_m: float


CONFIGURATIONS = {
    "weak": Safety(15, 200, 0.0, 0.0, 0.0),
    "medium": Safety(10, 1000, 0.01, 0.3, 0.4),
    "strong": Safety(7, 2000, 0.025, 0.5, 0.7),
    "max": Safety(0, 5000, 1.0, 0.5, 0.7),
}
"""Table 1 of the paper."""


def sld(
    e_u: Tensor, e_c: Tensor, e_s: Tensor, nu: Tensor, g: float, safety: Safety, *, warm: bool
) -> tuple[Tensor, Tensor]:
    """Guide a step away from a safety concept, element by element (equations 3 to 8).

    - mu = min(1, s_S |e_c - e_s|) if e_c - e_s < lambda, else 0.
    - gamma = mu (e_s - e_u) + s_m nu.
    - nu' = beta_m nu + (1 - beta_m) gamma.
    - e = e_u + g (e_c - e_u - gamma), without gamma during the warm-up.

    Args:
        e_u: output of the denoiser for the empty prompt, [B, ...].
        e_c: output of the denoiser for the user's prompt, [B, ...].
        e_s: output of the denoiser for the safety concept, [B, ...].
        nu: momentum, [B, ...]; zero at the first step.
        g: guidance scale.
        safety: the configuration.
        warm: whether the warm-up is over.

    Returns:
        The guided output e and the momentum nu' for the next step, [B, ...].
    """
    difference = e_c - e_s
    mu = torch.where(difference < safety.lam, (safety.s_S * difference.abs()).clamp(max=1.0), 0.0)
    gamma = mu * (e_s - e_u) + safety.s_m * nu
    nu = safety.beta_m * nu + (1 - safety.beta_m) * gamma
    return e_u + g * (e_c - e_u - gamma if warm else e_c - e_u), nu
