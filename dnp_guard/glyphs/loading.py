"""Load the embedded text-to-image models by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from dnp_guard.errors import DnpGuardError, did_you_mean
from dnp_guard.glyphs import FAST, PIPELINE

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 25
GUIDANCE_SCALE = 5.0
"""Settings with which the ordinary model, not the few-step one, was measured."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Settings of an embedded model.

    Attributes:
        steps: number of sampler steps.
        guidance_scale: scale of classifier-free guidance; 1 turns it off.
        denoiser: folder of the denoiser's weights.
    """

    steps: int
    guidance_scale: float
    denoiser: Path = PIPELINE / "unet"


MODELS = {"glyphs": Embedded(STEPS, GUIDANCE_SCALE), "glyphs-fast": Embedded(4, 1.0, FAST / "unet")}
"""The embedded models, with the settings of their measurements."""


def embedded(name: str) -> Embedded:
    """Look up the settings of an embedded model.

    Raises:
        DnpGuardError: there is no such model.
    """
    if name not in MODELS:
        raise DnpGuardError(f"there is no embedded model {name!r}", hint=did_you_mean(name, tuple(MODELS)))
    return MODELS[name]


def load_embedded(name: str) -> Any:
    """Load the pipeline of an embedded model.

    Raises:
        DnpGuardError: there is no such model, or its weights are missing.
    """
    embedded(name)
    return load_fast() if name == "glyphs-fast" else load_pipeline()


def load_pipeline(folder: Path = PIPELINE) -> Any:
    """Load the ordinary, not few-step, text-to-image pipeline in float32, on the GPU if there is one.

    Raises:
        DnpGuardError: the weights are missing.
    """
    return _loaded(folder)


def load_fast(folder: Path = PIPELINE, fast: Path = FAST) -> Any:
    """Load the few-step pipeline: the ordinary one with another denoiser and scheduler.

    Args:
        folder: folder of the ordinary pipeline.
        fast: folder of the denoiser and the scheduler.

    Raises:
        DnpGuardError: the weights are missing.
    """
    _require(fast, "unet/config.json")
    unet = UNet2DConditionModel.from_pretrained(fast / "unet").float()
    pipe = _loaded(folder, unet=unet, scheduler=LCMScheduler.from_pretrained(fast / "scheduler"))
    pipe.register_to_config(_name_or_path=str(fast))  # the model's measurements lie in its own folder
    return pipe


def generate(pipe: Any, prompts: list[str], seed: int, how: Embedded = MODELS["glyphs"]) -> list[Any]:
    """Generate one picture per prompt; picture i, from 0, uses the seed ``seed + i``."""
    generators = [torch.Generator().manual_seed(seed + index) for index in range(len(prompts))]
    images = pipe(
        prompts, num_inference_steps=how.steps, guidance_scale=how.guidance_scale, generator=generators
    ).images
    return list(images)


def _loaded(folder: Path, **parts: Any) -> Any:
    _require(folder, "model_index.json")
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, dtype=torch.float32, **parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to("cuda" if torch.cuda.is_available() else "cpu")


def _require(folder: Path, file: str) -> None:
    if not (folder / file).exists():
        raise DnpGuardError(f"{folder} holds no pipeline", hint="Run python -m dnp_guard.lab.train, or reinstall.")
