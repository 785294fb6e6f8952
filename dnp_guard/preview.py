"""Predictions x̂0 to pictures. The one place where latents become RGB for the vision-language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from torch import Tensor


@torch.no_grad()
def decode(vae: Any, latents: Tensor) -> list[Image.Image]:
    """Decode latents with a pipeline's own autoencoder.

    Args:
        vae: AutoencoderKL, AutoencoderTiny or alike, with ``config.scaling_factor``.
        latents: as the sampler holds them, scaled, [B, C, H, W].

    Returns:
        B pictures, RGB.

    Raises:
        DnpGuardError: a latent is not a number; its picture would be black, and look clean.
    """
    if not latents.isfinite().all():
        raise DnpGuardError(
            "the prediction is not finite", hint="Half precision may overflow: use bfloat16 or float32."
        )
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    # Not the autoencoder's own device: under offload it is moved to the latents' when it is called.
    unscaled = (latents / vae.config.scaling_factor + shift).to(vae.dtype)
    return to_pictures(vae.decode(unscaled, return_dict=False)[0] / 2 + 0.5)


@torch.no_grad()
def encode(vae: Any, picture: Image.Image, device: torch.device) -> Tensor:
    """Encode a picture into latents as the sampler holds them, [1, C, H, W] on a device; draws no noise."""
    shift = getattr(vae.config, "shift_factor", None) or 0.0
    pixels = (to_tensor([picture]) * 2 - 1).to(device=device, dtype=vae.dtype)
    encoded = vae.encode(pixels)
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()
    return (latents - shift) * vae.config.scaling_factor


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pixels 0…1, [B, 3, H, W], to pictures; values outside are clipped."""
    levels = (pixels.clamp(0, 1) * 255).round().to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in levels]


def to_tensor(pictures: list[Image.Image]) -> Tensor:
    """Pictures of one size to pixels 0…1, float32 [B, 3, H, W]."""
    raw = [torch.frombuffer(bytearray(each.convert("RGB").tobytes()), dtype=torch.uint8) for each in pictures]
    width, height = pictures[0].size
    return torch.stack(raw).view(len(raw), height, width, 3).permute(0, 3, 1, 2).float() / 255
