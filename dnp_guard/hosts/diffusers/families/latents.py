"""Latents as the sampler holds them to latents as the autoencoder takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


_OF_PICTURES = 4
"""Dimensions of the latents of pictures."""

FRAMES: Final = 3
"""How many frames of a video a look shows: the first, the middle and the last."""


def from_patches(pipe: Any, latents: Tensor, wanted: Mapping[str, Any]) -> Tensor:
    """Unpack patches of 2 x 2 latents, [B, rows * columns, 4 C], to [B, C, H, W] or, of one frame, [B, C, 1, H, W]."""
    default = pipe.default_sample_size * pipe.vae_scale_factor
    height, width = wanted.get("height") or default, wanted.get("width") or default
    rows, columns = grid(latents.shape[1], height, width)
    step = 2 * pipe.vae_scale_factor
    unpacked: Tensor = pipe._unpack_latents(latents, rows * step, columns * step, pipe.vae_scale_factor)  # noqa: SLF001 (as it does)
    return unpacked


def to_patches(_pipe: Any, latents: Tensor) -> Tensor:
    """Pack latents, [B, C, H, W] or [B, C, 1, H, W], into patches of 2 x 2, [B, H / 2 * W / 2, 4 C]."""
    batch, channels, *_, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, height // 2 * (width // 2), 4 * channels)


def grid(patches: int, height: int, width: int) -> tuple[int, int]:
    """The rows and columns of an image of that many patches whose sides are nearest to that ratio.

    A pipeline may round the size it is asked for, or take it from a picture.
    """
    pairs = [(rows, patches // rows) for rows in range(1, patches + 1) if patches % rows == 0]
    return min(pairs, key=lambda pair: max(pair[0] * width, pair[1] * height) / min(pair[0] * width, pair[1] * height))


def of_frames(latents: Tensor, count: int = FRAMES) -> Tensor:
    """Some frames of videos, [B, C, F, H, W], as latents of pictures, [B * k, C, H, W], those of a video together.

    They are spread over the video, the first, the middle and the last of three; k is ``count``, or F where that is
    less. Latents of pictures, [B, C, H, W], stay as they are.
    """
    if latents.ndim == _OF_PICTURES:
        return latents
    chosen = latents[:, :, frames(latents.shape[2], count)]
    return chosen.transpose(1, 2).flatten(0, 1)


def frames(total: int, count: int = FRAMES) -> list[int]:
    """Indices of ``count`` frames, or of all where there are no more, spread from the first to the last."""
    if total <= count:
        return list(range(total))
    return [round(place * (total - 1) / (count - 1)) for place in range(count)]
