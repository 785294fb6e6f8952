"""A linear map from latents to RGB, fitted to an autoencoder by least squares.

A patch of the picture is a linear function of the 3x3 latents around it, so a look costs one small convolution instead
of a decoder. The map is fitted to the autoencoder's own output on synthetic pictures, and its error is measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from dnp_guard.preview.autoencoder import check_finite, decoded, encoded, to_pictures

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_LATENTS = 32
_MOST_PATCH = 8
_FITTED, _HELD_OUT, _BATCH = 32, 8, 4
_RIDGE = 1e-4


@dataclass(frozen=True, slots=True)
class LinearMap:
    """A linear approximation of an autoencoder's decoder.

    Attributes:
        weight: [3 P², C, 3, 3], of a convolution whose channels are P x P patches of RGB, 0…1.
        bias: [3 P²].
        error: root mean square error against the autoencoder, out of 255, on held-out pictures.
        constant: the same error for the best single colour, as a reference.
    """

    weight: Tensor
    bias: Tensor
    error: float
    constant: float

    @property
    def patch(self) -> int:
        """P, pixels per side of the patch that one latent becomes."""
        return math.isqrt(self.bias.numel() // 3)

    @torch.no_grad()
    def pixels(self, unscaled: Tensor) -> Tensor:
        """Map unscaled latents [B, C, H, W] to pixels of about 0…1, [B, 3, P H, P W]."""
        around = F.pad(unscaled.float(), (1, 1, 1, 1), mode="replicate")
        return F.pixel_shuffle(F.conv2d(around, self.weight.to(around), self.bias.to(around)), self.patch)

    def decode(self, unscaled: Tensor) -> list[Image]:
        """Decode unscaled latents [B, C, H, W] into pictures.

        Raises:
            DnpGuardError: a latent is not finite.
        """
        pixels = self.pixels(unscaled)
        check_finite(pixels)
        return to_pictures(pixels)


@torch.no_grad()
def fit(vae: Any, device: torch.device) -> LinearMap:
    """Fit a map to an image autoencoder; takes seconds, or a minute for a large one without a GPU.

    Args:
        vae: AutoencoderKL, AutoencoderTiny or similar.
        device: device to compute on.
    """
    drawing = torch.Generator().manual_seed(0)
    pictures = torch.stack([draw(drawing, _side(vae)) for _ in range(_FITTED + _HELD_OUT)])
    latents, shown = zip(*(_through(vae, part.to(device)) for part in pictures.split(_BATCH)), strict=True)
    z, y = torch.cat(latents), torch.cat(shown)
    patch = y.shape[-1] // z.shape[-1]
    weight, bias = _least_squares(z[:_FITTED], F.pixel_unshuffle(y[:_FITTED], patch))
    held = y[_FITTED:]
    fitted = LinearMap(weight, bias, 0.0, _off(held, y[:_FITTED].mean((0, 2, 3), keepdim=True)))
    return LinearMap(weight, bias, _off(held, fitted.pixels(z[_FITTED:]).clamp(0, 1)), fitted.constant)


def draw(drawing: torch.Generator, side: int) -> Tensor:
    """Draw soft colours at every scale, with hard-edged boxes and discs over them, 0…1, [3, side, side]."""
    picture = torch.rand(3, 1, 1, generator=drawing).expand(3, side, side).clone()
    for cells in (2, 4, 8, 16):
        noise = torch.randn(1, 3, cells, cells, generator=drawing) * 0.5 / cells**0.5
        picture += F.interpolate(noise, (side, side), mode="bicubic")[0]
    rows, columns = torch.meshgrid(torch.linspace(0, 1, side), torch.linspace(0, 1, side), indexing="ij")
    for number in range(6):
        y, x, size = torch.rand(3, generator=drawing)
        away = torch.stack([(rows - y).abs(), (columns - x).abs()])
        inside = (away.amax(0) if number % 2 else away.square().sum(0).sqrt()) < 0.03 + size / 5
        picture[:, inside] = torch.rand(3, 1, generator=drawing)
    return picture.clamp(0, 1)


def _side(vae: Any) -> int:
    """Return the side, in pixels, of the pictures that the map is fitted to."""
    side: int = _LATENTS * int(getattr(vae, "spatial_compression_ratio", 0) or _shrinks(vae))
    return side


def _shrinks(vae: Any) -> int:
    blocks = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels") or ()
    return int(2 ** max(len(blocks) - 1, 0))


def _through(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Encode and decode pictures; scale the output down to at most eight pixels per latent."""
    latents = encoded(vae, pixels * 2 - 1)
    shown = decoded(vae, latents).float() / 2 + 0.5
    patch = min(shown.shape[-1] // latents.shape[-1], _MOST_PATCH)
    size = (latents.shape[-2] * patch, latents.shape[-1] * patch)
    return latents.float().cpu(), F.interpolate(shown.clamp(0, 1), size, mode="area").cpu()


def _least_squares(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Solve for the weight and bias of the convolution; z [N, C, H, W], y [N, 3 P², H, W]."""
    channels = z.shape[1]
    around = F.unfold(F.pad(z, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1).double()
    x = torch.cat([around, torch.ones(len(around), 1, dtype=around.dtype)], 1)
    target = y.flatten(2).transpose(1, 2).flatten(0, 1).double()
    ridge = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ target).T.float()
    return solved[:, :-1].reshape(-1, channels, 3, 3).contiguous(), solved[:, -1].contiguous()


def _off(shown: Tensor, guessed: Tensor) -> float:
    return float((shown - guessed).square().mean().sqrt() * 255)
