"""Find the pictures in the arguments of a pipeline's call, whatever the pipeline names them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from dnp_guard.errors import RequestRefused
from dnp_guard.hosts.diffusers.asking.prompts import prompt_of
from dnp_guard.hosts.diffusers.showing.frames import frames
from dnp_guard.preview import autoencoder

if TYPE_CHECKING:
    from dnp_guard.generation.driver import Driver
    from dnp_guard.guard import Guard

Picture = Sequence[Image.Image]
"""One picture in a call's arguments: the picture itself, some frames of a video, or nothing if it cannot be shown."""

_PICTURED = ("image", "video", "frame")
"""Parts of the names of arguments whose tensors are pictures."""
_VIDEOS = ("video", "frames")
_OF_PICTURES, _OF_VIDEOS = 4, 5
"""Number of dimensions of a batch of pictures, and of videos."""
_COLOURS = (1, 3)


def ask_inputs(guard: Guard, driver: Driver, given: Mapping[str, Any], images: int) -> None:
    """Query the VLM about the pictures in a call's arguments before its first step, if the policy requires that.

    Args:
        guard: the guard.
        driver: driver of the generation, which makes the queries.
        given: arguments of the call, by name.
        images: number of images that the call makes.

    Raises:
        RequestRefused: the policy refuses a picture.
    """
    if not driver.policy.asks_inputs:
        return
    pictures = brought(given, images)
    driver.inputs([picture for picture, _ in pictures], [owners for _, owners in pictures])
    if driver.report is not None:
        guard.finished(driver)
        raise RequestRefused(
            driver.report.images[0].why,
            hint="Bring another picture, or change `inputs` in the policy.",
            report=driver.report,
        )


def brought(given: Mapping[str, Any], images: int) -> list[tuple[Picture, Collection[int] | None]]:
    """Return the pictures in a call's arguments, each with the indices of the images made from it; None for all images.

    Arguments named as masks are not pictures. A tensor is a picture if its name says so; latents and embeddings cannot
    be shown. A list or batch with as many pictures as there are prompts has one per prompt.
    """
    prompt = prompt_of(given)[1]
    prompts = len(prompt) if isinstance(prompt, list | tuple) else 1
    per_prompt = images // prompts
    inputs: list[tuple[Picture, Collection[int] | None]] = []
    for name, value in given.items():
        pictures = [] if "mask" in name else _pictures(name, value)
        own = len(pictures) == prompts > 1 and images % prompts == 0
        inputs += [
            (picture, range(place * per_prompt, (place + 1) * per_prompt) if own else None)
            for place, picture in enumerate(pictures)
        ]
    return inputs


def _pictures(name: str, value: Any) -> list[Picture]:
    """Return the pictures inside an argument, in order; the frames of a video are one picture."""
    if isinstance(value, Image.Image):
        return [[value.convert("RGB")]]
    if isinstance(value, np.ndarray | torch.Tensor):
        return _of_array(name, value) if any(part in name for part in _PICTURED) else []
    if isinstance(value, Mapping):
        return [picture for key, item in value.items() for picture in _pictures(f"{name}.{key}", item)]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return [picture for key, item in parts.items() for picture in _pictures(key, item)]
    if not isinstance(value, list | tuple):
        return []
    pictures = [picture for item in value for picture in _pictures(name, item)]
    plain = all(isinstance(item, Image.Image) for item in value)
    return [_some(pictures)] if plain and pictures and any(part in name for part in _VIDEOS) else pictures


def _some(pictures: Sequence[Picture]) -> Picture:
    """Choose some frames of a video, whose frames are given as separate pictures, and return them as one picture."""
    return [pictures[frame][0] for frame in frames(len(pictures))]


def _of_array(name: str, value: Any) -> list[Picture]:
    given = value.detach().cpu() if isinstance(value, torch.Tensor) else torch.from_numpy(value.copy())
    pixels = given.float() if given.is_floating_point() else given.float() / 255
    if isinstance(value, np.ndarray) and pixels.ndim > 2:  # noqa: PLR2004 (a grey picture has no channels)
        pixels = pixels.movedim(-1, -3)
    video = any(part in name for part in _VIDEOS)
    if pixels.ndim < _OF_PICTURES + video:
        pixels = pixels[None]
    if pixels.ndim == _OF_VIDEOS and pixels.shape[2] not in _COLOURS:
        pixels = pixels.transpose(1, 2)
    if "latents" in name or "embeds" in name or pixels.ndim not in {_OF_PICTURES, _OF_VIDEOS}:
        return [()] * (len(pixels) if pixels.ndim else 1)
    if pixels.shape[-3] not in _COLOURS:
        return [()] * len(pixels)
    scaled = pixels / 2 + 0.5 if pixels.min() < 0 else pixels  # as diffusers interprets a picture
    return [_shown(picture if picture.ndim == _OF_PICTURES else picture[None]) for picture in scaled]


def _shown(pixels: torch.Tensor) -> Picture:
    chosen = pixels[frames(len(pixels))]
    return autoencoder.to_pictures(chosen.expand(-1, 3, -1, -1)) if chosen.isfinite().all() else ()
