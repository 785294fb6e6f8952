import numpy as np
import pytest
import torch

from dnp_guard.glyphs.loading import load_pipeline

STEPS = 8
PROMPTS = ["a red circle at night", "a blue square in a room", "a green cross on the beach"]


@pytest.fixture(scope="session")
def shared_pipe():
    pipe = load_pipeline()
    draw(pipe)  # diffusers keeps the arguments of its latest call on the pipeline
    return pipe


@pytest.fixture
def pipe(shared_pipe):
    """Yield the embedded pipeline; fail the test if the test leaves changes on the pipeline."""
    before = footprint(shared_pipe)
    yield shared_pipe
    shared_pipe.callback_on_step_end = None
    assert footprint(shared_pipe) == before


def footprint(pipe):
    """Return the class, attributes and hooks of a pipeline and its parts, in which a guard could leave changes."""
    modules = [pipe.unet, pipe.vae, pipe.text_encoder]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules]
    return type(pipe), sorted(pipe.__dict__), hooks, sorted(pipe.scheduler.__dict__), sorted(pipe.unet.__dict__)


def draw(pipe, prompts=PROMPTS, **arguments):
    """Generate three images from fixed seeds, as float arrays [3, 32, 32, 3]."""
    options = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "np", **arguments}
    generators = [torch.Generator().manual_seed(seed) for seed in range(len(prompts))]
    images = pipe(list(prompts), generator=generators, **options)[0]
    return np.asarray(images) if options["output_type"] == "np" else images
