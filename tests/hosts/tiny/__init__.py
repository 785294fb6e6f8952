"""Build tiny pipelines of diffusers with random weights, and call them for three images."""

import inspect
from functools import cache

import diffusers
import torch

from tests.hosts.tiny import flux, newest, stable_diffusion, transformers, video

PIPELINES = {
    **stable_diffusion.PIPELINES,
    **transformers.PIPELINES,
    **flux.PIPELINES,
    **video.PIPELINES,
    **newest.PIPELINES,
}
CALLS = {name: call for name, (_, call) in PIPELINES.items()}


@cache
def tiny(name):
    """Build a tiny pipeline of the named class, with random weights from a fixed seed."""
    torch.manual_seed(0)
    kind = getattr(diffusers, name)
    made, _ = PIPELINES[name]
    pipe = kind(**made())
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, **arguments):
    """Generate three images from fixed seeds, as float arrays, or as latents if ``output_type`` is ``latent``."""
    options = {"num_inference_steps": 8, "guidance_scale": 5.0, "output_type": "np", "height": 32, "width": 32}
    accepted = inspect.signature(type(pipe).__call__).parameters
    options = {key: value for key, value in options.items() if key in accepted}
    options |= CALLS.get(type(pipe).__name__, {}) | arguments
    torch.manual_seed(0)  # some pipelines draw without their generator
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    prompts = ["a red circle", "a blue square", "a green cross"]
    return pipe(**{"prompt": prompts, "generator": generators, **options})[0]


def footprint(pipe):
    """Return the class, attributes and hooks of a pipeline and its parts, in which a guard could leave changes."""
    parts = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks), sorted(part.__dict__)) for part in parts]
    scheduler = getattr(pipe, "scheduler", None)
    return type(pipe), sorted(pipe.__dict__), hooks, sorted(set(getattr(scheduler, "__dict__", ())) & {"step"})
