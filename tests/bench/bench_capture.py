"""Time the guard's work on tiny pipelines: per call, per negative prompt whose conditioning it captures, and per look.

A look decodes the predicted images of a step for the vision-language model.
"""

from __future__ import annotations

from unittest.mock import patch

import pytest

from dnp_guard import Guard
from dnp_guard.hosts.diffusers import call
from dnp_guard.hosts.diffusers.asking.proof import Proof
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.hosts.tiny import draw, tiny
from tests.policies import policy

NAMES = ["StableDiffusionPipeline", "StableDiffusionXLPipeline", "FluxPipeline", "SanaPipeline", "WanPipeline"]
"""One pipeline class per way to evaluate the guidance branches and to pack the latents."""


@pytest.fixture(params=NAMES)
def asked(request):
    """Return the arguments and the result of the guard's first ``call.begin``, in a call for three images."""
    begun = []

    def begin(*given):
        begun.append((given, plain(*given)))
        return begun[-1][1]

    plain, pipe = call.begin, tiny(request.param)
    with patch.object(call, "begin", begin), Guard(policy(), vlm=ScriptedBackend([{}])).attached(pipe):
        draw(pipe, num_inference_steps=1)
    return begun[0]


@pytest.mark.benchmark(group="a call of 4 steps", warmup=True)
@pytest.mark.parametrize("guarded", [False, True], ids=["plain", "guarded, no look"])
@pytest.mark.parametrize("name", NAMES)
def test_a_call(benchmark, name, guarded):
    pipe = tiny(name)
    pipe.callback_on_step_end = None
    of = policy(queries={"steps": [], "final": True})
    if guarded:
        pipe.callback_on_step_end = Guard(of, vlm=ScriptedBackend([{}]))
    try:
        assert len(benchmark.pedantic(draw, (pipe,), {"num_inference_steps": 4}, rounds=5, warmup_rounds=1)) == 3
    finally:
        pipe.callback_on_step_end = None


@pytest.mark.benchmark(group="a call is proven, once")
def test_a_call_is_proven(benchmark, asked):
    given, _ = asked
    assert benchmark.pedantic(call.begin, given, rounds=9, warmup_rounds=1).proof is not None


@pytest.mark.benchmark(group="a negative is captured, once a call")
def test_a_negative_is_captured(benchmark, asked):
    given, _ = asked

    def proof():
        return (call.begin(*given).proof, "a star"), {}  # a call captures a negative once

    assert benchmark.pedantic(Proof.captured, setup=proof, rounds=9, warmup_rounds=1).of(0)


@pytest.mark.benchmark(group="a look is decoded")
def test_a_look_is_decoded(benchmark, asked):
    given, begun = asked
    sample = given[3].sample
    assert benchmark.pedantic(begun.shows.pictures, (sample,), rounds=9, warmup_rounds=1)
