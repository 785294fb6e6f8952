"""The guard has images generated again in diffusers, in the embedded pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dnp_guard import Guard, Outcome
from dnp_guard.audit import MemorySink
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.bits import same
from tests.hosts.conftest import PROMPTS, STEPS, draw
from tests.policies import policy, star

pytestmark = pytest.mark.models

CLEAN, STAR = {"star": 0.0}, {"star": 0.9}
FIRST = [CLEAN] * 4
"""The number of looks of an attempt before its end."""
SHOWN = [[{}, STAR, {}]]
"""A final look in which the second image of three shows a star."""


def guard(script, **more):
    retries = more.pop("retries", {})
    of = policy(categories=[star(still_present="retry")], retries=retries)
    return Guard(of, vlm=ScriptedBackend([*FIRST, *script]), **more)


@pytest.mark.parametrize("kind", ["np", "pt", "latent"])
def test_an_image_is_made_again_and_the_others_keep_their_bits(pipe, kind):
    plain = draw(pipe, output_type=kind)
    pipe.callback_on_step_end = watching = guard([*SHOWN, CLEAN])
    assert same(draw(pipe, output_type=kind), plain) == [True, False, True]
    assert [image.decision for image in watching.last.images] == [Outcome.CLEAN, Outcome.STEERED, Outcome.CLEAN]


def test_an_image_that_is_made_again_is_not_grey(pipe):
    pipe.callback_on_step_end = guard([*SHOWN, CLEAN])
    assert draw(pipe)[1].std() > 0.01


def test_pictures_are_made_again_as_arrays_are(pipe):
    pipe.callback_on_step_end = guard([*SHOWN, CLEAN])
    arrays = draw(pipe)
    pipe.callback_on_step_end = guard([*SHOWN, CLEAN])
    pictures = draw(pipe, output_type="pil")
    assert np.abs(np.asarray(pictures[1]) / 255 - arrays[1]).max() < 0.01


def test_an_image_that_shows_it_again_is_withheld(pipe):
    pipe.callback_on_step_end = watching = guard([*SHOWN, *FIRST, STAR])
    draw(pipe)
    assert watching.last.images[1].decision == Outcome.BLOCKED
    assert watching.last.images[1].attempts == 2


def test_the_callers_generators_end_as_after_one_call(pipe):
    ends = []
    for watching in (None, guard([*SHOWN, CLEAN])):
        pipe.callback_on_step_end = watching
        generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
        pipe(PROMPTS, generator=generators, num_inference_steps=STEPS, output_type="np")
        ends.append([generator.get_state() for generator in generators])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


def test_without_generators_the_noise_is_that_of_the_first_attempt(pipe):
    drawn = []
    for watching in (None, guard([*SHOWN, CLEAN])):
        pipe.callback_on_step_end = watching
        torch.manual_seed(7)
        drawn.append((pipe(PROMPTS, num_inference_steps=STEPS, output_type="np").images, torch.rand(1)))
    assert same(drawn[0][0], drawn[1][0]) == [True, False, True]
    assert drawn[0][1] == drawn[1][1]


def test_the_callers_callback_sees_a_retry_as_it_sees_any_call(pipe):
    seen = []
    pipe.callback_on_step_end = guard([*SHOWN, CLEAN])
    draw(pipe, callback_on_step_end=lambda _pipe, index, _t, given: seen.append(index) or given)
    assert seen == [*range(STEPS), *range(STEPS)]


def test_a_retry_that_raises_ends_as_otherwise(pipe):
    calls = []

    def raising(_pipe, index, _t, given):
        calls.append(index)
        if len(calls) > STEPS:
            raise RuntimeError("no more")
        return given

    plain = draw(pipe)
    pipe.callback_on_step_end = watching = guard([*SHOWN, CLEAN], retries={"otherwise": "monitor"})
    assert same(draw(pipe, callback_on_step_end=raising), plain) == [True, True, True]
    assert watching.last.degraded == ("retry_failed",)


def test_a_retry_that_nobody_looks_at_ends_as_otherwise(pipe):
    pipe.callback_on_step_end = watching = guard([*SHOWN, *FIRST, {"error": "timeout"}])
    draw(pipe)
    assert [image.decision for image in watching.last.images] == [Outcome.CLEAN, Outcome.BLOCKED, Outcome.CLEAN]


def test_no_retry_begins_that_would_not_be_over_in_time(pipe):
    pipe.callback_on_step_end = watching = guard([*SHOWN, CLEAN], retries={"within_ms": 1})
    draw(pipe)
    assert watching.last.images[1].decision == Outcome.BLOCKED
    assert watching.last.images[1].attempts == 1


def test_the_call_argument_does_what_is_done_otherwise_and_says_why(pipe):
    sink = MemorySink()
    with guard([*SHOWN, CLEAN], audit=sink) as watching:
        draw(pipe, callback_on_step_end=watching)
    assert watching.last.images[1].decision is Outcome.BLOCKED
    finished = [record for record in sink.records if record["event"] == "request.finished"]
    assert finished[1]["reason"] == "the host cannot draw again"


def test_a_retry_is_in_the_record_the_report_and_the_metrics(pipe):
    sink = MemorySink()
    with guard([*SHOWN, CLEAN], audit=sink) as watching:
        pipe.callback_on_step_end = watching
        draw(pipe)
    (again,) = [record for record in sink.records if record["event"] == "request.retried"]
    negative = again["negative"]
    assert again["image"] == 1
    assert again["attempt"] == 2
    assert negative["text"] == "star"
    assert negative["scale"] == 9
    finished = [record for record in sink.records if record["event"] == "request.finished"]
    assert [record.get("attempts") for record in finished] == [None, 2, None]
    assert watching.last.retry_ms > 0
    counted = watching.metrics.registry.get_sample_value
    assert counted("dnp_guard_retries_total", {"policy": "test", "outcome": "cleared"}) == 1
