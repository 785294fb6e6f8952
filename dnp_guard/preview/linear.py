"""A linear map from latents to RGB, fitted to an autoencoder by least squares.

It approximates each patch of the picture by a linear function of the 3x3 latents around it, so a preview costs one
small convolution in place of the decoder. The map is fitted to the autoencoder's own output for synthetic pictures, and
its error is measured.
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
        weight: weight of a convolution whose output channels are P x P patches of RGB, 0…1; [3 P², C, 3, 3].
        bias: bias of the convolution, [3 P²].
        error: root mean square difference from the autoencoder's output, out of 255, on held-out pictures.
        constant: the same error if every pixel is guessed as the mean colour, for comparison.
    """

    weight: Tensor
    bias: Tensor
    error: float
    constant: float

    @property
    def patch(self) -> int:
        """Side P, in pixels, of the patch that one latent becomes."""
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
    """Fit a linear map to an image autoencoder, in seconds, or in a minute for a large autoencoder without a GPU.

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
    """Make a random picture for fitting: hard-edged boxes and discs over soft colours, 0…1, [3, side, side].

    Args:
        drawing: source of the random numbers.
        side: side of the picture, in pixels.
    """
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
    """Return the side, in pixels, of the pictures to which a map for this autoencoder is fitted."""
    side: int = _LATENTS * int(getattr(vae, "spatial_compression_ratio", 0) or _shrinks(vae))
    return side


def _shrinks(vae: Any) -> int:
    blocks = vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels") or ()
    return int(2 ** max(len(blocks) - 1, 0))


def _through(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latents of pictures, and the pictures decoded from them, shrunk to at most eight pixels per latent."""
    latents = encoded(vae, pixels * 2 - 1)
    shown = decoded(vae, latents).float() / 2 + 0.5
    patch = min(shown.shape[-1] // latents.shape[-1], _MOST_PATCH)
    size = (latents.shape[-2] * patch, latents.shape[-1] * patch)
    return latents.float().cpu(), F.interpolate(shown.clamp(0, 1), size, mode="area").cpu()


def _least_squares(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the convolution that best maps latents z [N, C, H, W] to patches y [N, 3 P², H, W]."""
    channels = z.shape[1]
    around = F.unfold(F.pad(z, (1, 1, 1, 1), mode="replicate"), 3).transpose(1, 2).flatten(0, 1).double()
    x = torch.cat([around, torch.ones(len(around), 1, dtype=around.dtype)], 1)
    target = y.flatten(2).transpose(1, 2).flatten(0, 1).double()
    ridge = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ target).T.float()
    return solved[:, :-1].reshape(-1, channels, 3, 3).contiguous(), solved[:, -1].contiguous()


def _off(shown: Tensor, guessed: Tensor) -> float:
    return float((shown - guessed).square().mean().sqrt() * 255)
