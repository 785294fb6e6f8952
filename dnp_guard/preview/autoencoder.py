"""Decode latents to pictures, and encode pictures to latents, with an autoencoder.

Scaled latents are in the sampler's range, unscaled ones in the autoencoder's.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from PIL import Image

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

MOST_SIDE = 64
"""Most latents per side that are decoded for a query: 512 pixels at 8 per latent, about the size that models read."""

_TURNS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_TAKING = threading.Lock()


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents with an autoencoder.

    Args:
        vae: AutoencoderKL, AutoencoderTiny or similar; a video autoencoder decodes each latent as a video of one frame.
        latents: scaled latents, as the sampler uses them, [B, C, H, W].

    Returns:
        B pictures, RGB.

    Raises:
        DnpGuardError: a latent is not finite; its picture would be black and look clean.
    """
    check_finite(latents)
    # Do not use the autoencoder's own device: under offload, calling it moves it to that of the latents.
    return to_pictures(decoded(vae, unscaled(vae, latents)) / 2 + 0.5)


@torch.no_grad()
def encode(vae: Any, picture: Image.Image, device: torch.device) -> Tensor:
    """Encode a picture into scaled latents without noise, [1, C, H, W] on the device, for a sampler."""
    return scaled(vae, encoded(vae, (to_tensor([picture]) * 2 - 1).to(device)))


def encoded(vae: Any, pixels: Tensor) -> Tensor:
    """Encode pixels -1…1, [B, 3, H, W], into unscaled latents: the mode of the autoencoder's distribution."""
    of_videos = _of_videos(vae)

    def encode_them(given: Tensor) -> Tensor:
        output = vae.encode(given)
        latents: Tensor = output.latent_dist.mode() if hasattr(output, "latent_dist") else output[0]
        return latents

    latents = _in_range(vae, encode_them, pixels.unsqueeze(2) if of_videos else pixels)
    return latents[:, :, 0] if of_videos else latents


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """Decode unscaled latents, [B, C, H, W], into pixels of about -1…1, [B, 3, H, W].

    Raises:
        DnpGuardError: a pixel is not finite; the picture would be black and look clean.
    """
    of_videos = _of_videos(vae)
    timed = of_videos and getattr(vae.config, "timestep_conditioning", False)

    def decode_them(given: Tensor) -> Tensor:
        # A decoder that takes a time denoises once more itself: at 0 there is nothing left to denoise.
        at = (given.new_zeros(1),) if timed else ()
        # Some video decoders add noise; they must not advance the caller's random numbers.
        with torch.random.fork_rng([given.device] if given.is_cuda else [], enabled=of_videos):
            # Some video autoencoders decode only one latent at a time.
            pixels = [
                vae.decode(part, *at, return_dict=False)[0] for part in (given.split(1) if of_videos else [given])
            ]
        return torch.cat(pixels)

    pixels = _in_range(vae, decode_them, latents.unsqueeze(2) if of_videos else latents)
    check_finite(pixels)
    return pixels[:, :, 0] if of_videos else pixels


def _in_range(vae: Any, compute: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """Run an autoencoder; if float16 overflows, as with Stable Diffusion XL's, run it in float32 instead."""
    with _TAKING:
        turn = _TURNS.setdefault(vae, threading.Lock())
    with turn:  # no other thread may use it while its precision changes
        computed = compute(given.to(vae.dtype))
        if not _all_half(vae) or computed.isfinite().all():
            return computed
        vae.to(torch.float32)
        try:
            return compute(given.float())
        finally:
            vae.to(torch.float16)  # restores every bit, because every float16 is a float32


def _all_half(vae: Any) -> bool:
    tensors = (*vae.parameters(), *vae.buffers())
    return all(tensor.dtype == torch.float16 for tensor in tensors if tensor.is_floating_point())


def _of_videos(vae: Any) -> bool:
    """Return whether an autoencoder is for videos, or treats pictures as videos of one frame."""
    return "temperal_downsample" in vae.config or any(isinstance(part, torch.nn.Conv3d) for part in vae.modules())


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Turn scaled latents, in the sampler's range, into unscaled ones, in the autoencoder's range."""
    scale, std, shift = _scaling(vae, latents)
    return latents / scale * std + shift


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """Turn unscaled latents, in the autoencoder's range, into scaled ones, in the sampler's range."""
    scale, std, shift = _scaling(vae, latents)
    return (latents - shift) / std * scale


def _scaling(vae: Any, latents: Tensor) -> tuple[float, Tensor | float, Tensor | float]:
    """Return scaling factor, standard deviation and mean of an autoencoder's latents, the last two also per channel."""
    scale = getattr(vae.config, "scaling_factor", None) or 1.0
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    saved = dict(vae.named_buffers(recurse=False))  # some autoencoders save them with the weights
    mean, std = (saved.get(name, vae.config.get(name)) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return scale, 1.0, shift
    return scale, *(torch.as_tensor(value).to(latents).view(1, -1, 1, 1) for value in (std, mean))


def reduced(latents: Tensor, most: int = MOST_SIDE) -> Tensor:
    """Shrink latents by averaging areas, so that no side exceeds ``most``; return small ones unchanged.

    Args:
        latents: [B, C, H, W].
        most: largest number of latents per side.
    """
    height, width = latents.shape[-2:]
    longest = max(height, width)
    if longest <= most:
        return latents
    size = (max(1, round(height * most / longest)), max(1, round(width * most / longest)))
    return F.interpolate(latents, size, mode="area")


def check_finite(latents: Tensor) -> None:
    """Check that latents or pixels are finite, so that a picture can be made from them.

    Raises:
        DnpGuardError: a value is not finite; the picture would be black and look clean.
    """
    if not latents.isfinite().all():
        raise DnpGuardError(
            "the prediction is not finite", hint="Half precision may overflow: use bfloat16 or float32."
        )


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Turn pixels 0…1, [B, 3, H, W], into pictures; clip values outside this range."""
    levels = (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(picture) for picture in levels]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """Turn pictures of one size into pixels 0…1, float32 [B, 3, H, W]."""
    raw = [torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8) for picture in pictures]
    width, height = pictures[0].size
    return torch.stack(raw).view(len(raw), height, width, 3).permute(0, 3, 1, 2).float() / 255
