"""Latents to pictures and back, by an autoencoder."""

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
"""Latents a side that a look decodes: 512 pixels of one that shrinks by 8, about what models are shown."""

_TURNS: WeakKeyDictionary[Any, threading.Lock] = WeakKeyDictionary()
_TAKING = threading.Lock()


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents with an autoencoder.

    Args:
        vae: AutoencoderKL, AutoencoderTiny or alike, or one of videos, to which each latent is a frame of its own.
        latents: as the sampler holds them, scaled, [B, C, H, W].

    Returns:
        B pictures, RGB.

    Raises:
        DnpGuardError: a latent is not a number; its picture would be black, and look clean.
    """
    check_finite(latents)
    # Not the autoencoder's own device: under offload it is moved to the latents' when it is called.
    return to_pictures(decoded(vae, unscaled(vae, latents)) / 2 + 0.5)


@torch.no_grad()
def encode(vae: Any, picture: Image.Image, device: torch.device) -> Tensor:
    """Encode a picture into latents as the sampler holds them, [1, C, H, W] on a device; draws no noise."""
    return scaled(vae, encoded(vae, (to_tensor([picture]) * 2 - 1).to(device)))


def encoded(vae: Any, pixels: Tensor) -> Tensor:
    """What an autoencoder makes of pixels -1…1, [B, 3, H, W]: unscaled latents, the mode of a distribution."""
    of_videos = _of_videos(vae)

    def encode_them(given: Tensor) -> Tensor:
        found = vae.encode(given)
        latents: Tensor = found.latent_dist.mode() if hasattr(found, "latent_dist") else found[0]
        return latents

    latents = _in_range(vae, encode_them, pixels.unsqueeze(2) if of_videos else pixels)
    return latents[:, :, 0] if of_videos else latents


def decoded(vae: Any, latents: Tensor) -> Tensor:
    """What an autoencoder makes of unscaled latents, [B, C, H, W]: pixels about -1…1, [B, 3, H, W].

    Raises:
        DnpGuardError: a pixel is not a number; the picture would be black, and look clean.
    """
    of_videos = _of_videos(vae)
    timed = of_videos and getattr(vae.config, "timestep_conditioning", False)

    def decode_them(given: Tensor) -> Tensor:
        # One that takes a time denoises a last time itself: at 0 there is nothing left to denoise.
        at = (given.new_zeros(1),) if timed else ()
        # Some decoders of videos add noise of their own; the caller's random numbers are not to be drawn on.
        with torch.random.fork_rng([given.device] if given.is_cuda else [], enabled=of_videos):
            # Some of videos decode one at a time only.
            pixels = [
                vae.decode(each, *at, return_dict=False)[0] for each in (given.split(1) if of_videos else [given])
            ]
        return torch.cat(pixels)

    pixels = _in_range(vae, decode_them, latents.unsqueeze(2) if of_videos else latents)
    check_finite(pixels)
    return pixels[:, :, 0] if of_videos else pixels


def _in_range(vae: Any, compute: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    """What an autoencoder computes; where float16 overflows, as Stable Diffusion XL's does, in float32 instead."""
    with _TAKING:
        turn = _TURNS.setdefault(vae, threading.Lock())
    with turn:  # no other look may find it half way between the two
        computed = compute(given.to(vae.dtype))
        if not _all_half(vae) or computed.isfinite().all():
            return computed
        vae.to(torch.float32)
        try:
            return compute(given.float())
        finally:
            vae.to(torch.float16)  # bit by bit what it was: every float16 is a float32


def _all_half(vae: Any) -> bool:
    tensors = (*vae.parameters(), *vae.buffers())
    return all(each.dtype == torch.float16 for each in tensors if each.is_floating_point())


def _of_videos(vae: Any) -> bool:
    """Whether an autoencoder is of videos, or of pictures as videos of one frame."""
    return "temperal_downsample" in vae.config or any(isinstance(part, torch.nn.Conv3d) for part in vae.modules())


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the autoencoder made them, from latents as the sampler holds them."""
    scale, std, shift = _scaling(vae, latents)
    return latents / scale * std + shift


def scaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the sampler holds them, from latents as the autoencoder made them."""
    scale, std, shift = _scaling(vae, latents)
    return (latents - shift) / std * scale


def _scaling(vae: Any, latents: Tensor) -> tuple[float, Tensor | float, Tensor | float]:
    """Scale, spread and mean of latents [B, C, H, W]: of all channels, or channel by channel."""
    scale = getattr(vae.config, "scaling_factor", None) or 1.0
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    saved = dict(vae.named_buffers(recurse=False))  # where they come with the weights
    mean, std = (saved.get(name, vae.config.get(name)) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return scale, 1.0, shift
    return scale, *(torch.as_tensor(each).to(latents).view(1, -1, 1, 1) for each in (std, mean))


def reduced(latents: Tensor, most: int = MOST_SIDE) -> Tensor:
    """Latents averaged over areas so that no side is longer than ``most``; the very same where none is.

    Args:
        latents: [B, C, H, W].
        most: latents a side.
    """
    height, width = latents.shape[-2:]
    longest = max(height, width)
    if longest <= most:
        return latents
    size = (max(1, round(height * most / longest)), max(1, round(width * most / longest)))
    return F.interpolate(latents, size, mode="area")


def check_finite(latents: Tensor) -> None:
    """See that a picture can be made.

    Raises:
        DnpGuardError: a latent is not a number; its picture would be black, and look clean.
    """
    if not latents.isfinite().all():
        raise DnpGuardError(
            "the prediction is not finite", hint="Half precision may overflow: use bfloat16 or float32."
        )


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels 0…1, [B, 3, H, W], to pictures; values outside are clipped."""
    levels = (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in levels]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size to pixels 0…1, float32 [B, 3, H, W]."""
    raw = [torch.frombuffer(bytearray(each.convert("RGB").tobytes()), dtype=torch.uint8) for each in pictures]
    width, height = pictures[0].size
    return torch.stack(raw).view(len(raw), height, width, 3).permute(0, 3, 1, 2).float() / 255
