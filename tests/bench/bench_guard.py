"""Time image generation with the embedded models, unguarded and guarded, in the same run."""

import pytest
import torch

from dnp_guard import Guard
from dnp_guard.glyphs import VLM
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.lab.evaluate.cost import UNASKED, measure
from dnp_guard.vlm.scripted import ScriptedBackend

STEPS = 25


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(2)
    return load_pipeline()


GUARDS = {
    "unguarded": lambda: None,
    "guarded, clean": lambda: Guard("glyphs", vlm="glyphs"),
    "guarded, clean, for less": lambda: Guard("glyphs-light", vlm="glyphs"),
    "guarded, steering": lambda: Guard("glyphs", vlm=ScriptedBackend({"star": 1.0})),
    "unguarded again": lambda: None,  # an earlier guard leaves nothing behind that slows the pipeline
}


@pytest.mark.benchmark(group="one image of 25 steps")
@pytest.mark.parametrize("kind", GUARDS)
def test_an_image_is_generated(benchmark, pipe, kind):
    pipe.callback_on_step_end = GUARDS[kind]()

    def generate():
        noise = torch.Generator().manual_seed(0)
        pipe("a red circle at night", num_inference_steps=STEPS, guidance_scale=5.0, generator=noise)

    benchmark.pedantic(generate, rounds=7, warmup_rounds=1)
    pipe.callback_on_step_end = None


def test_a_step_at_which_nothing_is_asked(benchmark, pipe):
    costs = benchmark.pedantic(
        measure, args=(pipe, VLM), kwargs={"batches": [1], "steps": STEPS, "rounds": 10}, rounds=1, iterations=1
    )
    (unasked,) = [cost for cost in costs if cost.kind == UNASKED]
    benchmark.extra_info["step_ratio"] = unasked.step_ratio
    print(f"\n{unasked.step_ratio:.3f} of an unguarded step")  # noqa: T201 (what the bench is for)
