"""Choose the frames of a video to query."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

FRAMES: Final = 3
"""Number of frames per video in a query: the first, the middle and the last."""

_OF_PICTURES = 4
"""Number of dimensions of the latents of pictures."""


def frames(total: int, count: int = FRAMES) -> list[int]:
    """Return the indices of ``count`` frames, evenly spread from the first to the last; all if there are fewer."""
    if total <= count:
        return list(range(total))
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]


def of_frames(latents: Tensor, images: int) -> Tensor:
    """Return the latents of the frames to show of every video as a batch of pictures, [images * k, C, H, W].

    ``k`` is the number of frames that :func:`frames` chooses; a picture is its own only frame, so k is 1.

    Args:
        latents: of pictures, [images, C, H, W]; of frames of videos, [images * F, C, H, W]; or of videos,
            [images, C, F, H, W].
        images: number of pictures or videos in the batch.
    """
    if latents.ndim > _OF_PICTURES:
        latents = latents.transpose(1, 2).flatten(0, 1)
    per_image = latents.shape[0] // images
    chosen = [image * per_image + frame for image in range(images) for frame in frames(per_image)]
    return latents if len(chosen) == len(latents) else latents[chosen]
