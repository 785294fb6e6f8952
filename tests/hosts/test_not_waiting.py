"""Guarded calls may continue to denoise while the vision-language model answers, in the embedded pipeline."""

import numpy as np
import pytest
import torch

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.policy import Policy, load_policy
from dnp_guard.vlm.scripted import ScriptedBackend

PROMPT = "a red circle at night"
STEPS = 8


@pytest.fixture(scope="module")
def pipe():
    return load_pipeline()


def not_waiting():
    data = load_policy("glyphs").resolved()
    data["queries"] |= {"wait": False}
    return Policy.model_validate(data)


def draw(pipe, **more):
    generator = torch.Generator().manual_seed(5)
    return pipe(PROMPT, num_inference_steps=STEPS, guidance_scale=5.0, generator=generator, **more).images[0]


def test_the_image_equals_the_unguarded_one_when_nothing_is_found(pipe):
    plain = draw(pipe)
    with Guard(not_waiting(), vlm=ScriptedBackend([{}])) as guard, guard.attached(pipe):
        guarded = draw(pipe)
    assert np.array_equal(np.asarray(plain), np.asarray(guarded))
    assert guard.last.decision == "clean"


def test_a_finding_steers_later_than_it_was_seen_and_the_record_tells_both_steps(pipe):
    sink = MemorySink()

    class Star:
        def ask(self, images, questions):
            return [[0.9 if "star" in question else 0.0 for question in questions] for _ in images]

    with Guard(not_waiting(), vlm=Star(), audit=sink) as guard, guard.attached(pipe):
        draw(pipe)
    looks = [r for r in sink.records if r["event"] == "query"]
    assert looks[-1].get("step") is None
    assert {r["applied_step"] > r["step"] + 1 for r in looks if "applied_step" in r} == {True}
    assert guard.last.images[0].decision == "blocked"


def test_a_call_that_raises_leaves_the_pipeline_as_it_was(pipe):
    def stop(*_):
        raise RuntimeError("stopped")

    plain = draw(pipe)
    with Guard(not_waiting(), vlm=ScriptedBackend([{}])) as guard, guard.attached(pipe):
        with pytest.raises(RuntimeError, match="stopped"):
            draw(pipe, callback_on_step_end=stop)
        assert guard.last.decision == "failed_closed"
    assert np.array_equal(np.asarray(plain), np.asarray(draw(pipe)))
