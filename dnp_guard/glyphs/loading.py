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
"""What the ordinary model was measured with."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """How an embedded model is run.

    Attributes:
        steps: of its sampler.
        guidance_scale: of classifier-free guidance; 1 runs none.
        denoiser: its folder.
    """

    steps: int
    guidance_scale: float
    denoiser: Path = PIPELINE / "unet"


MODELS = {"glyphs": Embedded(STEPS, GUIDANCE_SCALE), "glyphs-fast": Embedded(4, 1.0, FAST / "unet")}
"""The embedded models, with what they were measured with."""


def embedded(name: str) -> Embedded:
    """How an embedded model is run.

    Raises:
        DnpGuardError: there is no such model.
    """
    if name not in MODELS:
        raise DnpGuardError(f"there is no embedded model {name!r}", hint=did_you_mean(name, tuple(MODELS)))
    return MODELS[name]


def load_embedded(name: str) -> Any:
    """The pipeline of an embedded model.

    Raises:
        DnpGuardError: there is no such model, or its weights are not there.
    """
    embedded(name)
    return load_fast() if name == "glyphs-fast" else load_pipeline()


def load_pipeline(folder: Path = PIPELINE) -> Any:
    """The ordinary pipeline in float32 on the CPU, or on the GPU where there is one.

    Raises:
        DnpGuardError: the weights are not there.
    """
    return _loaded(folder)


def load_fast(folder: Path = PIPELINE, fast: Path = FAST) -> Any:
    """The few-step pipeline: the ordinary one with a denoiser and a scheduler of its own.

    Args:
        folder: of the ordinary pipeline.
        fast: of the denoiser and the scheduler.

    Raises:
        DnpGuardError: the weights are not there.
    """
    _require(fast, "unet/config.json")
    unet = UNet2DConditionModel.from_pretrained(fast / "unet").float()
    pipe = _loaded(folder, unet=unet, scheduler=LCMScheduler.from_pretrained(fast / "scheduler"))
    pipe.register_to_config(_name_or_path=str(fast))  # what was measured of the model lies in its own folder
    return pipe


def generate(pipe: Any, prompts: list[str], seed: int, how: Embedded = MODELS["glyphs"]) -> list[Any]:
    """One picture per prompt, image i from seed ``seed + i``."""
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
