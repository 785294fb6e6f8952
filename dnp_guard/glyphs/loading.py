"""Load the embedded text-to-image model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from diffusers import StableDiffusionPipeline

from dnp_guard.errors import DnpGuardError
from dnp_guard.glyphs import PIPELINE

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 25
GUIDANCE_SCALE = 5.0
"""What the models were measured with."""


def load_pipeline(folder: Path = PIPELINE) -> Any:
    """The pipeline in float32 on the CPU, or on the GPU where there is one.

    Raises:
        DnpGuardError: the weights are not there.
    """
    if not (folder / "model_index.json").exists():
        raise DnpGuardError(f"{folder} holds no pipeline", hint="Run python -m dnp_guard.lab.train, or reinstall.")
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def generate(pipe: Any, prompts: list[str], seed: int) -> list[Any]:
    """One picture a prompt, image i from seed ``seed + i``; ``STEPS`` steps at ``GUIDANCE_SCALE``."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    images = pipe(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE, generator=generators).images
    return list(images)
