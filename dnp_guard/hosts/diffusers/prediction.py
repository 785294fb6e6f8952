"""Compute the clean image predicted at a step, x̂0 (``pred_original_sample``), from the guided model output.

``SPACES`` defines how a scheduler class mixes image and noise, x = alpha x0 + sigma noise; ``KINDS`` defines how x0
follows from the model's output under a ``prediction_type``. ``predict`` looks up both. Nothing is read from a
scheduler's output, because several schedulers return something else there (TCD, DEIS, the noise-predicting DPM
solvers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor


def cumulative(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return sqrt(a) and sqrt(1 - a) with a = ``alphas_cumprod[t]`` (Ho et al., arXiv 2006.11239, eq. 4)."""
    product = float(scheduler.alphas_cumprod[int(timestep)])
    return product**0.5, (1 - product) ** 0.5


def cosine(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return sqrt(a) and sqrt(1 - a) of a cosine schedule over continuous t (Pernias et al., arXiv 2306.00637)."""
    t = torch.as_tensor(timestep, dtype=torch.float32).flatten()[:1]
    product = float(scheduler._alpha_cumprod(t, t.device))  # noqa: SLF001 (its schedule has no other name)
    return product**0.5, (1 - product) ** 0.5


def exploding(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return alpha = 1, and sigma from the scheduler's table (Karras et al., arXiv 2206.00364)."""
    return 1.0, _level(scheduler, timestep)


def preserving(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return alpha and sigma with alpha^2 + sigma^2 = 1 (Lu et al., arXiv 2211.01095), or those of a flow.

    The scheduler's table holds sigma / alpha, or the flow's sigmas.
    """
    if _flows(scheduler):
        return flow(scheduler, timestep)
    level = _level(scheduler, timestep)
    alpha = (level**2 + 1) ** -0.5
    return alpha, level * alpha


def flow(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return alpha = 1 - sigma, and sigma (rectified flow: Liu et al., arXiv 2209.03003; Lipman et al., 2210.02747)."""
    sigma = _level(scheduler, timestep)
    return (sigma, 1 - sigma) if _inverted(scheduler) else (1 - sigma, sigma)


def trigonometric(_: Any, timestep: Any) -> tuple[float, float]:
    """Return alpha = cos t and sigma = sin t (Lu and Song, arXiv 2410.11081)."""
    t = float(torch.as_tensor(timestep).flatten()[0])
    return math.cos(t), math.sin(t)


def from_noise(x: Tensor, eps: Tensor, alpha: float, sigma: float) -> Tensor:
    """Return x0 = (x - sigma eps) / alpha (Ho et al., arXiv 2006.11239, eq. 15 with alpha and sigma)."""
    return (x - sigma * eps) / alpha


def from_velocity(x: Tensor, v: Tensor, alpha: float, sigma: float) -> Tensor:
    """Return x0 = alpha x - sigma v (Salimans and Ho, arXiv 2202.00512, app. D), scaled to alpha^2 + sigma^2 = 1."""
    norm = math.hypot(alpha, sigma)
    return (alpha * x / norm - sigma * v) / norm


def from_sample(_x: Tensor, x0: Tensor, _alpha: float, _sigma: float) -> Tensor:
    """Return the model's output, which is x0 itself."""
    return x0


def from_flow(x: Tensor, v: Tensor, _alpha: float, sigma: float) -> Tensor:
    """Return x0 = x - sigma v with v = noise - x0 (Liu et al., arXiv 2209.03003)."""
    return x - sigma * v


def from_inverted_flow(x: Tensor, v: Tensor, _alpha: float, sigma: float) -> Tensor:
    """Return x0 = x + sigma v with v = x0 - noise, for schedulers with ``invert_sigmas``, whose table has 1 - sigma."""
    return x + sigma * v


def from_preconditioned(
    x: Tensor, output: Tensor, sigma: float, sigma_data: float, *, velocity: bool = False
) -> Tensor:
    """Return x0 = c_skip x + c_out F (Karras et al., arXiv 2206.00364, eq. 7); c_out changes sign for a velocity."""
    scale = math.hypot(sigma, sigma_data)
    c_skip, c_out = (sigma_data / scale) ** 2, sigma * sigma_data / scale
    return c_skip * x + (-c_out if velocity else c_out) * output


KINDS: dict[str, Callable[[Tensor, Tensor, float, float], Tensor]] = {
    "epsilon": from_noise,
    "v_prediction": from_velocity,
    "sample": from_sample,
    "original_sample": from_sample,
    "flow_prediction": from_flow,
    "trigflow": from_velocity,
}
"""Functions from a model's output to x0, by ``prediction_type``."""


@dataclass(frozen=True, slots=True)
class _Row:
    space: Callable[[Any, Any], tuple[float, float]]
    """Returns alpha and sigma for a scheduler and a timestep."""
    kinds: tuple[str, ...]
    """Allowed values of ``prediction_type``; for a scheduler without that setting, the one that it implies."""
    preconditioned: bool = False


_NOISE = ("epsilon", "v_prediction", "sample", "original_sample")

SPACES: dict[str, _Row] = {
    **dict.fromkeys(
        (
            "CogVideoXDDIMScheduler",
            "CogVideoXDPMScheduler",
            "DDIMParallelScheduler",
            "DDIMScheduler",
            "DDPMParallelScheduler",
            "DDPMScheduler",
            "LCMScheduler",
            "PNDMScheduler",
            "TCDScheduler",
        ),
        _Row(cumulative, _NOISE),
    ),
    **dict.fromkeys(
        (
            "DPMSolverSDEScheduler",
            "EulerAncestralDiscreteScheduler",
            "EulerDiscreteScheduler",
            "HeunDiscreteScheduler",
            "KDPM2AncestralDiscreteScheduler",
            "KDPM2DiscreteScheduler",
            "LMSDiscreteScheduler",
        ),
        _Row(exploding, _NOISE),
    ),
    **dict.fromkeys(
        (
            "DEISMultistepScheduler",
            "DPMSolverMultistepScheduler",
            "DPMSolverSinglestepScheduler",
            "SASolverScheduler",
            "UniPCMultistepScheduler",
        ),
        _Row(preserving, (*_NOISE, "flow_prediction")),
    ),
    **dict.fromkeys(
        (
            "FlowMapEulerDiscreteScheduler",
            "FlowMatchEulerDiscreteScheduler",
            "FlowMatchHeunDiscreteScheduler",
            "FlowMatchLCMScheduler",
            "HeliosScheduler",
            "LTXEulerAncestralRFScheduler",
        ),
        _Row(flow, ("flow_prediction",)),
    ),
    **dict.fromkeys(
        ("CosineDPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler", "EDMEulerScheduler"),
        _Row(exploding, ("epsilon", "v_prediction"), preconditioned=True),
    ),
    "DDPMWuerstchenScheduler": _Row(cosine, ("epsilon",)),
    "SCMScheduler": _Row(trigonometric, ("trigflow",)),
}
"""How each scheduler class mixes image and noise. Classes are looked up by exact name: a subclass may differ."""


def check(scheduler: Any) -> None:
    """Check that the clean image can be computed from a model's output under a scheduler.

    Raises:
        CannotSteer: the scheduler's class, or its kind of prediction, is not known.
    """
    name = type(scheduler).__name__
    if name not in SPACES:
        raise CannotSteer(f"the prediction of a {name} is not known", hint=f"Use one of {', '.join(sorted(SPACES))}.")
    kind, known = _kind(scheduler), SPACES[name].kinds
    if kind not in known:
        raise CannotSteer(f"prediction_type {kind!r} is not known of a {name}", hint=f"Use one of {', '.join(known)}.")
    # A flow prediction needs flow sigmas, and no other kind is defined on them: at the first step alpha is 0.
    if SPACES[name].space is preserving and _flows(scheduler) != (kind == "flow_prediction"):
        raise CannotSteer(
            f"prediction_type {kind!r} with use_flow_sigmas={_flows(scheduler)} has no prediction of the clean image",
            hint="Use prediction_type='flow_prediction' together with use_flow_sigmas=True, or neither.",
        )


def predict(scheduler: Any, output: Tensor, timestep: Any, sample: Tensor) -> tuple[Tensor, float | None]:
    """Predict the clean latents of one step, before ``scheduler.step`` is called.

    Args:
        scheduler: scheduler of the pipeline, with its timesteps set.
        output: the guided model output, [B, ...]; learned variances behind the channels of x_t are ignored.
        timestep: timestep of this step.
        sample: x_t, [B, ...].

    Returns:
        x̂0, [B, ...], at least float32, and the noise level in the scheduler's own terms: sigma for flows, otherwise
        sigma / alpha; None if there is only noise.
    """
    row, kind = SPACES[type(scheduler).__name__], _kind(scheduler)
    alpha, sigma = row.space(scheduler, timestep)
    precise = torch.promote_types(sample.dtype, torch.float32)
    x, output = sample.to(precise), output.to(precise)
    if output.ndim > 1 and output.shape[1] == 2 * x.shape[1]:
        output = output[:, : x.shape[1]]
    if row.preconditioned:
        velocity = kind == "v_prediction"
        return from_preconditioned(x, output, sigma, scheduler.config.sigma_data, velocity=velocity), sigma
    level = sigma if kind == "flow_prediction" else sigma / alpha if alpha else None
    predicted = from_inverted_flow if kind == "flow_prediction" and _inverted(scheduler) else KINDS[kind]
    return predicted(x, output, alpha, sigma), level


def levels(scheduler: Any, places: Iterable[int]) -> tuple[float, ...]:
    """Return the fractions of noise, σ/(α+σ), at the start of steps: 1 for pure noise; with flow matching σ itself.

    Args:
        scheduler: scheduler with its timesteps set.
        places: indices of the steps' timesteps.
    """
    space = SPACES[type(scheduler).__name__].space
    mixed = (space(_At(scheduler, place), scheduler.timesteps[place]) for place in places)
    return tuple(sigma / (alpha + sigma) for alpha, sigma in mixed)


class _At:
    """A scheduler as it will be at one of its timesteps."""

    state_in_first_order = True

    def __init__(self, scheduler: Any, place: int) -> None:
        self._scheduler, self.step_index = scheduler, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)


def _kind(scheduler: Any) -> str:
    known = SPACES[type(scheduler).__name__].kinds
    return scheduler.config.get("prediction_type", known[0])


def _flows(scheduler: Any) -> bool:
    return bool(scheduler.config.get("use_flow_sigmas", False))


def _inverted(scheduler: Any) -> bool:
    return bool(scheduler.config.get("invert_sigmas", False))


def _level(scheduler: Any, timestep: Any) -> float:
    """Return the scheduler's sigma at the model's last evaluation, which can be inside a step."""
    index = _index(scheduler, timestep)
    if getattr(scheduler, "state_in_first_order", True):
        return float(scheduler.sigmas[index])
    halfway = _HALFWAY.get(type(scheduler).__name__)
    return float(halfway(scheduler, index) if halfway else scheduler.sigmas[index])


_HALFWAY: dict[str, Callable[[Any, int], Any]] = {
    "DPMSolverSDEScheduler": lambda scheduler, _: scheduler.mid_point_sigma,
    "KDPM2AncestralDiscreteScheduler": lambda scheduler, index: scheduler.sigmas_interpol[index - 1],
    "KDPM2DiscreteScheduler": lambda scheduler, index: scheduler.sigmas_interpol[index],
}
"""Noise level of a step's second evaluation, unless that is at the end of the step as in Heun's method."""


def _index(scheduler: Any, timestep: Any) -> int:
    if scheduler.step_index is not None:
        return int(scheduler.step_index)
    if getattr(scheduler, "begin_index", None) is not None:
        return int(scheduler.begin_index)
    return int(scheduler.index_for_timestep(timestep))
