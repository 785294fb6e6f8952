"""Latents to pictures and back, by an autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from torch import Tensor

MOST_SIDE = 64
"""Latents a side that a look decodes: 512 pixels of one that shrinks by 8, about what models are shown."""


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents with an autoencoder.

    Args:
        vae: AutoencoderKL, AutoencoderTiny or alike.
        latents: as the sampler holds them, scaled, [B, C, H, W].

    Returns:
        B pictures, RGB.

    Raises:
        DnpGuardError: a latent is not a number; its picture would be black, and look clean.
    """
    check_finite(latents)
    # Not the autoencoder's own device: under offload it is moved to the latents' when it is called.
    return to_pictures(vae.decode(unscaled(vae, latents).to(vae.dtype), return_dict=False)[0] / 2 + 0.5)


@torch.no_grad()
def encode(vae: Any, picture: Image.Image, device: torch.device) -> Tensor:
    """Encode a picture into latents as the sampler holds them, [1, C, H, W] on a device; draws no noise."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    latents = encoded(vae, (to_tensor([picture]) * 2 - 1).to(device=device, dtype=vae.dtype))
    return (latents - shift) * vae.config.scaling_factor


def encoded(vae: Any, pixels: Tensor) -> Tensor:
    """What an autoencoder makes of pixels -1…1, [B, 3, H, W]: unscaled latents, the mode of a distribution."""
    found = vae.encode(pixels)
    latents: Tensor = found.latents if hasattr(found, "latents") else found.latent_dist.mode()
    return latents


def unscaled(vae: Any, latents: Tensor) -> Tensor:
    """Latents as the autoencoder made them, from latents as the sampler holds them."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    return latents / vae.config.scaling_factor + shift


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
