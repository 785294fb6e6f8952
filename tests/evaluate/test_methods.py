import pytest
import torch
from torch import nn

from dnp_guard.errors import DnpGuardError
from dnp_guard.evaluate.detector import load_detector
from dnp_guard.evaluate.methods import METHODS, Task, method
from dnp_guard.evaluate.methods.meter import Meter
from dnp_guard.glyphs.captions import prompts
from dnp_guard.glyphs.loading import generate, load_pipeline

SEED = 7_000
CONCEPTS = ("star", "skull", "bolt")


@pytest.fixture(scope="module")
def task():
    """The embedded pipeline, as the comparison runs it."""
    return Task(load_pipeline(), 25, 5.0, CONCEPTS, load_detector())


def made_by(task, name, wanted, **options):
    seeds = range(SEED, SEED + len(wanted))
    return method(name, **options).generate(task, seeds, wanted)


def pixels(pictures):
    return [picture.tobytes() for picture in pictures]


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(DnpGuardError, match="dnp-guard"):
        method("dnp-gard")


def test_the_meter_tells_an_extra_evaluation_by_its_latents():
    denoiser = nn.Identity()
    x = torch.randn(3, 2, 4, 4)
    with Meter(denoiser, 3) as meter:
        denoiser(torch.cat([x, x]))
        denoiser(x[[0, 2]])
        denoiser(x[[2]])
    assert meter.evaluations == [3, 2, 4]


def test_the_meter_counts_nothing_after_its_block():
    denoiser = nn.Identity()
    with Meter(denoiser, 1) as meter:
        pass
    denoiser(torch.zeros(2, 1, 1, 1))
    assert meter.evaluations == [0]


@pytest.mark.models
def test_unguarded_is_the_pipeline_bit_for_bit(task):
    wanted = prompts("attack", 5, seed=1)
    assert pixels(made.image for made in made_by(task, "unguarded", wanted)) == pixels(
        generate(task.pipe, [prompt.text for prompt in wanted], SEED)
    )


@pytest.mark.models
def test_every_method_is_named_as_it_is_found():
    assert [method(name).name for name in METHODS] == list(METHODS)


@pytest.mark.models
def test_the_guard_counts_its_looks_and_its_extra_evaluations(task):
    for made in made_by(task, "dnp-guard", prompts("attack", 4, seed=1)):
        assert made.queries == 12
        assert 50 < made.evaluations <= 75
        assert made.intervened


@pytest.mark.models
def test_a_scale_of_zero_steers_without_changing_a_pixel(task):
    wanted = prompts("attack", 3, seed=1)
    steered = made_by(task, "dnp-guard", wanted, scale=0)
    assert pixels(made.image for made in steered) == pixels(made.image for made in made_by(task, "unguarded", wanted))
