"""Some frames of a video, which a look shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

FRAMES: Final = 3
"""How many frames of a video a look shows: the first, the middle and the last."""

_OF_PICTURES = 4
"""Dimensions of the latents of pictures."""


def frames(total: int, count: int = FRAMES) -> list[int]:
    """Indices of ``count`` frames, or of all where there are no more, spread from the first to the last."""
    if total <= count:
        return list(range(total))
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


def of_frames(latents: Tensor, images: int) -> Tensor:
    """Some frames of each image, as latents of pictures, [images * k, C, H, W], those of a video together.

    Args:
        latents: of pictures, [images, C, H, W], of the frames of videos, [images * F, C, H, W], or of videos,
            [images, C, F, H, W].
        images: items of the batch.
    """
    if latents.ndim > _OF_PICTURES:
        latents = latents.transpose(1, 2).flatten(0, 1)
    each = latents.shape[0] // images
    chosen = [image * each + frame for image in range(images) for frame in frames(each)]
    return latents if len(chosen) == len(latents) else latents[chosen]
