import inspect
import math

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.prediction import SPACES, check, levels, predict

NOISE = ("epsilon", "v_prediction", "sample")
TWO = ("epsilon", "v_prediction")
SCHEDULES = ({}, {"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True})
DPM = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")


def cases(names, kinds, settings):
    return [(name, {"prediction_type": kind, **more}) for name in names.split() for kind in kinds for more in settings]


FLOWS = [{"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": shift} for shift in (1.0, 3.0)]
CASES = [
    *cases("DDIMScheduler DDIMParallelScheduler DDPMScheduler DDPMParallelScheduler", NOISE, [{}]),
    *cases("CogVideoXDDIMScheduler CogVideoXDPMScheduler LCMScheduler TCDScheduler", NOISE, [{}]),
    *cases("CogVideoXDDIMScheduler DDIMScheduler", ["v_prediction"], [{"rescale_betas_zero_snr": True}]),
    *cases("PNDMScheduler", TWO, [{}, {"skip_prk_steps": True}]),
    *cases("EulerDiscreteScheduler HeunDiscreteScheduler LMSDiscreteScheduler", NOISE, SCHEDULES),
    *cases("KDPM2DiscreteScheduler KDPM2AncestralDiscreteScheduler DPMSolverSDEScheduler", TWO, SCHEDULES),
    *cases("EulerAncestralDiscreteScheduler", TWO, [{}]),
    *cases("SASolverScheduler", NOISE, [*SCHEDULES, {"algorithm_type": "noise_prediction"}]),
    *cases("DEISMultistepScheduler", NOISE, [{"solver_order": order, **s} for order in (2, 3) for s in SCHEDULES]),
    *cases("UniPCMultistepScheduler", NOISE, [{"solver_order": o, **s} for o in (2, 3) for s in SCHEDULES]),
    *cases("UniPCMultistepScheduler", NOISE, [{"predict_x0": False}]),
    *cases("DPMSolverMultistepScheduler", NOISE, [{"solver_order": o, **s} for o in (1, 2, 3) for s in SCHEDULES]),
    *cases(
        "DPMSolverMultistepScheduler", NOISE, [{"algorithm_type": k, "final_sigmas_type": "sigma_min"} for k in DPM]
    ),
    *cases("DPMSolverMultistepScheduler", TWO, [{"use_lu_lambdas": True}, {"euler_at_final": True}]),
    *cases("DPMSolverSinglestepScheduler", NOISE, [{"solver_order": o, **s} for o in (2, 3) for s in SCHEDULES]),
    *cases("EDMEulerScheduler EDMDPMSolverMultistepScheduler CosineDPMSolverMultistepScheduler", TWO, [{}]),
    *(
        (name, flow)
        for name in ("DEISMultistepScheduler", "SASolverScheduler", "UniPCMultistepScheduler")
        for flow in FLOWS
    ),
    *((f"DPMSolver{kind}Scheduler", flow) for kind in ("Multistep", "Singlestep") for flow in FLOWS),
    *((f"FlowMatch{kind}Scheduler", {"shift": 3.0}) for kind in ("EulerDiscrete", "HeunDiscrete", "LCM")),
    ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}),
    ("FlowMatchEulerDiscreteScheduler", {"use_exponential_sigmas": True}),
    ("FlowMatchEulerDiscreteScheduler", {"use_beta_sigmas": True}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    ("FlowMapEulerDiscreteScheduler", {"shift": 3.0}),
    ("HeliosScheduler", {"stages": 1, "stage_range": [0, 1], "scheduler_type": "euler"}),
    ("LTXEulerAncestralRFScheduler", {}),
    ("DDPMWuerstchenScheduler", {}),
    ("SCMScheduler", {}),
]

ENDS_AT_ZERO = {"DDPMWuerstchenScheduler", "SCMScheduler"}
"""Schedulers whose last timestep is the clean image, at which no model is evaluated."""


def made(name, settings):
    kind = getattr(diffusers, name)
    schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    known = inspect.signature(kind).parameters
    return kind(**{key: value for key, value in schedule.items() if key in known}, **settings)


@pytest.mark.filterwarnings(  # diffusers hands tensors to numpy, rounds times for torchsde, and drops DPM-Solver
    "ignore:__array_wrap__:DeprecationWarning",
    "ignore:Should have t:UserWarning",
    "ignore:.*algorithm_type:FutureWarning",
)
@pytest.mark.parametrize(
    ("name", "settings"),
    CASES,
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_a_perfect_model_is_read_back_as_the_image_it_knows_at_every_step(name, settings):
    torch.manual_seed(0)  # fixes the noise of stochastic schedulers
    sampler = made(name, settings)
    sampler.set_timesteps(2 if name == "SCMScheduler" else 8)
    x0, noise = torch.randn(2, 4, 4, 4), torch.randn(2, 4, 4, 4)
    x = noise * getattr(sampler, "init_noise_sigma", 1.0)
    old = None
    before = None
    for t in sampler.timesteps[: -1 if name in ENDS_AT_ZERO else None]:
        if name == "DDPMWuerstchenScheduler":
            t = t.view(1)  # noqa: PLW2901 (a batch of times, as its pipelines pass it)
        alpha, sigma = mixed(sampler, t)
        output = answer(sampler, x.double(), x0.double(), alpha, sigma).float()
        predicted, _ = predict(sampler, output, t, x)
        assert (predicted - x0).abs().max() <= 1e-4 * x0.abs().max()
        if name == "CogVideoXDPMScheduler":
            x, old = sampler.step(output, old, t, before, x, return_dict=False)
            before = t
        else:
            x = sampler.step(output, t, x).prev_sample


def mixed(sampler, t):
    """Return alpha and sigma of x = alpha x0 + sigma noise at a timestep, derived independently of the guard's code."""
    name = type(sampler).__name__
    if name.startswith(("Flow", "LTX")):
        return 1 - float(t) / 1000, float(t) / 1000
    if name == "SCMScheduler":
        return math.cos(t), math.sin(t)
    if name == "DDPMWuerstchenScheduler":
        product = float(sampler._alpha_cumprod(t, t.device))  # noqa: SLF001 (its schedule has no other name)
        return product**0.5, (1 - product) ** 0.5
    if not hasattr(sampler, "sigmas"):
        product = float(sampler.alphas_cumprod[int(t)])
        return product**0.5, (1 - product) ** 0.5
    if hasattr(sampler, "_sigma_to_alpha_sigma_t") and not hasattr(sampler, "precondition_outputs"):
        index = sampler.step_index if sampler.step_index is not None else sampler.index_for_timestep(t)
        return (float(share) for share in sampler._sigma_to_alpha_sigma_t(sampler.sigmas[index].double()))
    data = sampler.config.get("sigma_data", 1.0)
    scaled = sampler.scale_model_input(torch.ones(1, dtype=torch.float64), t)
    return 1.0, (float(scaled) ** -2 - data**2) ** 0.5


def answer(sampler, x, x0, alpha, sigma):
    """Return the output, for an input x, of a perfect model that knows x0, in the scheduler's prediction type."""
    kind, eps = sampler.config.get("prediction_type", "flow_prediction"), (x - alpha * x0) / sigma
    if type(sampler).__name__ == "DDPMWuerstchenScheduler":
        return eps
    if hasattr(sampler, "precondition_outputs"):
        data = sampler.config.sigma_data
        skipped = x0 - data**2 / (sigma**2 + data**2) * x
        return skipped / (sigma * data / (sigma**2 + data**2) ** 0.5) * (-1 if kind == "v_prediction" else 1)
    norm = (alpha**2 + sigma**2) ** 0.5
    velocity = (alpha * eps - sigma * x0) / norm
    return {
        "epsilon": eps,
        "v_prediction": velocity,
        "trigflow": velocity,
        "sample": x0,
        "flow_prediction": eps - x0,
    }[kind]


def test_every_known_scheduler_is_measured():
    assert {name for name, _ in CASES} == set(SPACES)


def test_half_precision_latents_are_predicted_in_single_precision():
    sampler = DDIMScheduler()
    sampler.set_timesteps(4)
    predicted, _ = predict(sampler, torch.ones(1, 1, 2, 2).half(), sampler.timesteps[0], torch.ones(1, 1, 2, 2).half())
    assert predicted.dtype == torch.float32


def test_learned_variances_behind_the_channels_are_left_out():
    sampler = DDIMScheduler(prediction_type="sample")
    output = torch.arange(4.0).view(1, 4, 1, 1)
    predicted, _ = predict(sampler, output, 0, torch.zeros(1, 2, 1, 1))
    assert torch.equal(predicted, output[:, :2])


def test_the_share_of_noise_is_sigma_under_flow_matching():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    assert levels(scheduler, range(4)) == pytest.approx(scheduler.sigmas[:4].tolist())


def test_schedulers_that_mix_noise_in_otherwise_have_one_share_of_it():
    settings = {"timestep_spacing": "trailing"}
    shares = []
    for kind in (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler):
        scheduler = kind(**settings)
        scheduler.set_timesteps(4)
        shares.append(levels(scheduler, range(4)))
    assert shares[1] == pytest.approx(shares[0], rel=1e-3)
    assert shares[2] == pytest.approx(shares[0], rel=1e-3)


def test_pure_noise_has_no_noise_level_to_record():
    sampler = DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")
    assert predict(sampler, torch.ones(1, 1), 999, torch.ones(1, 1))[1] is None


def test_an_unknown_scheduler_is_refused_with_the_known_ones_named():
    class Other(DDIMScheduler):
        pass

    with pytest.raises(CannotSteer) as refused:
        check(Other())
    assert "EulerDiscreteScheduler" in refused.value.hint


def test_an_unknown_prediction_type_is_refused():
    sampler = DDIMScheduler()
    sampler.register_to_config(prediction_type="something")
    with pytest.raises(CannotSteer, match="prediction_type 'something' is not known"):
        check(sampler)


@pytest.mark.parametrize("settings", [{"use_flow_sigmas": True}, {"prediction_type": "flow_prediction"}])
def test_flow_sigmas_without_a_flow_prediction_are_refused_and_the_other_way_round(settings):
    with pytest.raises(CannotSteer, match="has no prediction of the clean image"):
        check(UniPCMultistepScheduler(**settings))


def test_a_flow_scheduler_says_no_prediction_type_and_needs_none():
    check(FlowMatchEulerDiscreteScheduler())
