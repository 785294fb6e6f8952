"""What the guard costs a generation on the embedded models: unguarded and guarded side by side in one run."""

import pytest
import torch

from dnp_guard import Guard, load_policy
from dnp_guard.glyphs.loading import load_pipeline
from dnp_guard.policy import Policy
from dnp_guard.vlm.scripted import ScriptedBackend

STEPS = 25


@pytest.fixture(scope="module")
def pipe():
    torch.set_num_threads(2)
    return load_pipeline()


def policy(**queries):
    resolved = load_policy("glyphs").resolved()
    return Policy.model_validate({**resolved, "queries": {**resolved["queries"], **queries}})


def unqueried():
    """Looks at the first step alone, so that nearly every step is one the guard only watches."""
    return Guard(policy(steps=[0.0]), vlm=ScriptedBackend({}))


GUARDS = {
    "unguarded": lambda: None,
    "guarded, nothing asked": unqueried,
    "guarded, clean": lambda: Guard("glyphs", vlm="glyphs"),
    "guarded, steering": lambda: Guard("glyphs", vlm=ScriptedBackend({"star": 1.0})),
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
