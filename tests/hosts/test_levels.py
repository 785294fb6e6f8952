"""Looks by noise level fall on the right steps in runs of few steps."""

from __future__ import annotations

import diffusers
import pytest

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import draw, tiny
from tests.policies import policy


def looked_at(name, steps, scheduler=None, **arguments):
    """Return the steps of a run that have a look, under a policy with looks at the noise levels 0.9, 0.7 and 0.4."""
    pipe = tiny(name)
    before = pipe.scheduler
    pipe.scheduler = scheduler or before
    of = policy(queries={"steps": [], "sigmas": [0.9, 0.7, 0.4]})
    with Guard(of, vlm=ScriptedBackend([{}])) as guard, guard.attached(pipe):
        draw(pipe, num_inference_steps=steps, **arguments)
    pipe.scheduler = before
    return [query.step for query in guard.last.images[0].queries if query.step is not None]


@pytest.mark.parametrize(("shift", "looks"), [(1.0, [1, 3, 5]), (7.0, [4, 6])])
def test_a_shifted_schedule_is_looked_at_where_its_noise_is(shift, looks):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    assert looked_at("StableDiffusion3Pipeline", 8, scheduler) == looks


def test_a_run_of_one_step_is_looked_at_when_it_is_finished():
    assert looked_at("StableDiffusion3Pipeline", 1, diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)) == []


def test_a_run_that_begins_with_less_noise_is_looked_at_where_it_begins():
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    looks = looked_at("StableDiffusionImg2ImgPipeline", 8, scheduler, strength=0.5)
    assert looks[0] == 0
