"""The pictures that a call brings in its own arguments, whatever the pipeline calls them."""

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
"""One that a call brings: itself, some frames of a video, or nothing where it cannot be shown."""

_PICTURED = ("image", "video", "frame")
"""Parts of the names of arguments whose tensors are pictures."""
_VIDEOS = ("video", "frames")
_OF_PICTURES, _OF_VIDEOS = 4, 5
"""Dimensions of a batch of either."""
_COLOURS = (1, 3)


def ask_inputs(guard: Guard, driver: Driver, given: Mapping[str, Any], images: int) -> None:
    """Ask about the pictures of a call before its first step, where the policy does.

    Args:
        guard: the guard.
        driver: of the generation.
        given: the call's arguments by name.
        images: number of images that it makes.

    Raises:
        RequestRefused: the policy refuses one of them.
    """
    if not driver.policy.asks_inputs:
        return
    found = brought(given, images)
    driver.inputs([picture for picture, _ in found], [owners for _, owners in found])
    if driver.report is not None:
        guard.finished(driver)
        raise RequestRefused(
            driver.report.images[0].why,
            hint="Bring another picture, or change `inputs` in the policy.",
            report=driver.report,
        )


def brought(given: Mapping[str, Any], images: int) -> list[tuple[Picture, Collection[int] | None]]:
    """Each picture of a call with the images that are made from it; None for all.

    What is a mask by its name is no picture. A tensor is one where its name says so; what is already latents or
    embeddings cannot be shown. A list, or a batch, of as many pictures as there are prompts has one for each.
    """
    prompt = prompt_of(given)[1]
    prompts = len(prompt) if isinstance(prompt, list | tuple) else 1
    each = images // prompts
    found: list[tuple[Picture, Collection[int] | None]] = []
    for name, value in given.items():
        pictures = [] if "mask" in name else _pictures(name, value)
        own = len(pictures) == prompts > 1 and images % prompts == 0
        found += [
            (picture, range(place * each, (place + 1) * each) if own else None)
            for place, picture in enumerate(pictures)
        ]
    return found


def _pictures(name: str, value: Any) -> list[Picture]:
    """The pictures in a value, in turn; those of a video together."""
    if isinstance(value, Image.Image):
        return [[value.convert("RGB")]]
    if isinstance(value, np.ndarray | torch.Tensor):
        return _of_array(name, value) if any(part in name for part in _PICTURED) else []
    if isinstance(value, Mapping):
        return [picture for key, each in value.items() for picture in _pictures(f"{name}.{key}", each)]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value)}
        return [picture for key, each in parts.items() for picture in _pictures(key, each)]
    if not isinstance(value, list | tuple):
        return []
    pictures = [picture for each in value for picture in _pictures(name, each)]
    plain = all(isinstance(each, Image.Image) for each in value)
    return [_some(pictures)] if plain and pictures and any(part in name for part in _VIDEOS) else pictures


def _some(pictures: Sequence[Picture]) -> Picture:
    """Some frames of a video, each of which was taken for a picture."""
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
    scaled = pixels / 2 + 0.5 if pixels.min() < 0 else pixels  # as diffusers reads a picture
    return [_shown(each if each.ndim == _OF_PICTURES else each[None]) for each in scaled]


def _shown(pixels: torch.Tensor) -> Picture:
    chosen = pixels[frames(len(pixels))]
    return autoencoder.to_pictures(chosen.expand(-1, 3, -1, -1)) if chosen.isfinite().all() else ()
