import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.prediction import check, predict

SCHEDULERS = [
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
]


KINDS = ["epsilon", "v_prediction", "sample"]
DIFFUSERS_LACKS = {(PNDMScheduler, "sample"), (EulerAncestralDiscreteScheduler, "sample")}
CASES = [(scheduler, kind) for scheduler in SCHEDULERS for kind in KINDS if (scheduler, kind) not in DIFFUSERS_LACKS]


@pytest.mark.parametrize(("scheduler", "kind"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_a_perfect_model_is_read_back_as_the_image_it_knows_at_every_step(scheduler, kind):
    sampler = scheduler.from_config(DDIMScheduler(beta_schedule="scaled_linear").config, prediction_type=kind)
    sampler.set_timesteps(10)
    generator = torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(2, 4, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    x = noise * sampler.init_noise_sigma
    for t in sampler.timesteps:
        alpha, sigma = alpha_sigma(sampler, t)
        # what a model that knows x0 answers about this very x
        eps = (x - alpha * x0) / sigma
        scale = (alpha**2 + sigma**2) ** 0.5
        a, s = alpha / scale, sigma / scale
        output = {"epsilon": eps, "v_prediction": a * eps - s * x0, "sample": x0}[kind]
        predicted, _ = predict(sampler, output, t, x)
        assert (predicted - x0).abs().max() <= 1e-4 * x0.abs().max()
        x = sampler.step(output, t, x).prev_sample


def alpha_sigma(sampler, t):
    """x = alpha x0 + sigma noise, from what the scheduler itself does to its input."""
    if not hasattr(sampler, "sigmas"):
        product = sampler.alphas_cumprod[int(t)].double()
        return product.sqrt(), (1 - product).sqrt()
    index = sampler.step_index if sampler.step_index is not None else sampler.index_for_timestep(t)
    sigma = sampler.sigmas[index].double()
    if hasattr(sampler, "_sigma_to_alpha_sigma_t"):
        return sampler._sigma_to_alpha_sigma_t(sigma)
    return torch.tensor(1.0), sigma


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
