"""Render training data: random scenes (glyphs in a place) and their images. The same seed gives the same data."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from dnp_guard.glyphs.scene import Scene, render, sample_scene

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 2000


def draw(n: int, seed: int, processes: int = 1) -> tuple[Tensor, list[Scene]]:
    """Sample random scenes, and render their images.

    Args:
        n: number of scenes, a multiple of 2000.
        seed: seed of the scenes and of their images.
        processes: number of CPU processes; it does not change the result.

    Returns:
        Images, uint8 [n, 3, 32, 32], and their scenes.
    """
    chunks = range(n // _CHUNK)
    with ProcessPoolExecutor(processes) as pool:
        parts = list(pool.map(partial(_draw, seed), chunks))
    images = np.concatenate([part[0] for part in parts])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), [scene for part in parts for scene in part[1]]


def to_float(images: Tensor) -> Tensor:
    """Convert bytes 0…255 to floats -1…1, shape unchanged."""
    return images.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """Convert floats -1…1 to bytes 0…255, shape unchanged."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _draw(seed: int, chunk: int) -> tuple[np.ndarray, list[Scene]]:
    rng = np.random.default_rng([seed, chunk])
    scenes = [sample_scene(rng) for _ in range(_CHUNK)]
    return np.stack([render(scene, rng) for scene in scenes]), scenes
