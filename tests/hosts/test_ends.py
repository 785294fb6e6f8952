"""How often a pipeline's own end is run to show its predictions."""

import pytest
from diffusers import StableDiffusionPipeline

from dnp_guard import Guard
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.conftest import draw
from tests.policies import policy

pytestmark = pytest.mark.models


class Ended(StableDiffusionPipeline):
    """Counts how often its end is run, and ends in a way of its own."""

    moved = 0.0
    ends = 0

    def __call__(self, *args, callback_on_step_end=None, **kwargs):
        """Move the last latents before they are decoded."""

        def last(pipe, step, timestep, tensors):
            tensors = callback_on_step_end(pipe, step, timestep, tensors) if callback_on_step_end else tensors
            if step == pipe.num_timesteps - 1:
                type(self).ends += 1
                tensors["latents"] = tensors["latents"] + self.moved
            return tensors

        return super().__call__(*args, callback_on_step_end=last, **kwargs)


def ends(pipe, moved, queries):
    Ended.ends, Ended.moved = 0, moved
    pipe.__class__ = Ended
    with Guard(policy(queries={"steps": queries}), vlm=ScriptedBackend([{"star": 0.0}])).attached(pipe):
        draw(pipe)
    return Ended.ends


def test_an_end_that_only_undoes_the_scaling_is_not_run_for_a_query(pipe):
    assert ends(pipe, 0.0, [0.2, 0.4, 0.6, 0.8]) == ends(pipe, 0.0, [0.2])


def test_an_end_of_another_kind_is_run_for_each_query(pipe):
    assert ends(pipe, 0.5, [0.2, 0.4, 0.6, 0.8]) == ends(pipe, 0.5, [0.2]) + 3
