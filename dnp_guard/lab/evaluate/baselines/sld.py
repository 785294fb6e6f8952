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
        delta: warm-up, in steps of 50.
        s_S: the safety guidance scale.
        lam: the threshold lambda.
        s_m: the momentum scale.
        beta_m: the momentum's decay.
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
    """Guide a step away from a safety concept, elementwise (equations 3 to 8).

    mu = min(1, s_S |e_c - e_s|) where e_c - e_s < lambda, else 0; gamma = mu (e_s - e_u) + s_m nu;
    nu' = beta_m nu + (1 - beta_m) gamma; e = e_u + g (e_c - e_u - gamma), gamma left out during the warm-up.

    Args:
        e_u: the denoiser's output for the empty prompt, [B, ...].
        e_c: for the user's prompt, [B, ...].
        e_s: for the safety concept, [B, ...].
        nu: the momentum so far, [B, ...]; zero at first.
        g: the guidance scale.
        safety: the configuration.
        warm: whether the warm-up is over.

    Returns:
        The guided output and the momentum of the next step.
    """
    difference = e_c - e_s
    mu = torch.where(difference < safety.lam, (safety.s_S * difference.abs()).clamp(max=1.0), 0.0)
    gamma = mu * (e_s - e_u) + safety.s_m * nu
    nu = safety.beta_m * nu + (1 - safety.beta_m) * gamma
    return e_u + g * (e_c - e_u - gamma if warm else e_c - e_u), nu
