"""The clean image predicted at a step, x̂0 (``pred_original_sample``), from the guided model output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from torch import Tensor

_SIGMA_SPACE = frozenset({"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"})
"""x = x0 + sigma noise (Karras et al. 2022)."""
_HALF_LOG_SNR = frozenset({"DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler"})
"""Tabulate sigma, yet x = alpha x0 + alpha sigma noise with alpha = (1 + sigma^2)^(-1/2) (Lu et al. 2022)."""
_ALPHAS = frozenset({"DDIMScheduler", "DDPMScheduler", "PNDMScheduler", "LCMScheduler", "TCDScheduler"})
"""x = sqrt(a) x0 + sqrt(1 - a) noise with a = ``alphas_cumprod[t]`` (Ho et al. 2020)."""
_KINDS = frozenset({"epsilon", "v_prediction", "sample"})


def check(scheduler: Any) -> None:
    """See that predictions of a scheduler are known.

    Raises:
        CannotSteer: they are not.
    """
    name, kind = type(scheduler).__name__, scheduler.config.get("prediction_type", "epsilon")
    if name not in _SIGMA_SPACE | _HALF_LOG_SNR | _ALPHAS:
        known = ", ".join(sorted(_SIGMA_SPACE | _HALF_LOG_SNR | _ALPHAS))
        raise CannotSteer(f"the prediction of a {name} is not known", hint=f"Use one of {known}.")
    if kind not in _KINDS:
        raise CannotSteer(f"prediction_type {kind!r} is not known", hint=f"Use one of {', '.join(sorted(_KINDS))}.")


def predict(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor, float]:
    """Predict the clean latents of one step, before ``scheduler.step`` is called.

    With x = alpha x0 + sigma noise: x0 = (x - sigma eps) / alpha for a noise prediction, x0 = alpha x - sigma v for a
    v-prediction (Salimans and Ho 2022). Where alpha^2 + sigma^2 is not 1, x and v are first rescaled so that it is.

    Args:
        scheduler: as the pipeline holds it, timesteps set.
        output: the guided model output, [B, ...].
        timestep: of this step.
        sample: x_t, [B, ...].

    Returns:
        x̂0, [B, ...], and the noise level sigma / alpha.
    """
    name = type(scheduler).__name__
    if name in _ALPHAS:
        product = float(scheduler.alphas_cumprod[int(timestep)])
        alpha, sigma = product**0.5, (1 - product) ** 0.5
        level = sigma / alpha
    else:
        level = float(scheduler.sigmas[_index(scheduler, timestep)])
        alpha = (level**2 + 1) ** -0.5
        sigma = level * alpha
        if name in _SIGMA_SPACE:
            sample = sample * alpha
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "sample":
        return output, level
    if kind == "v_prediction":
        return alpha * sample - sigma * output, level
    return (sample - sigma * output) / alpha, level


def _index(scheduler: Any, timestep: Any) -> int:
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))
