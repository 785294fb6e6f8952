"""From latents as an autoencoder makes them back to latents as the sampler holds them, as the pipeline's end tells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_EXACT = 1 << 24
"""Up to here every whole number is a float32."""


def packed(unpack: Callable[[Tensor], Tensor], like: Tensor, latents: Tensor) -> Tensor:
    """Latents as the sampler holds them, [B, ...], from unscaled ones as an autoencoder makes them.

    A pipeline's end puts each number somewhere else and scales it, so three replays tell where and how.

    Args:
        unpack: replays the pipeline's end, from the sampler's latents to the autoencoder's.
        like: latents as the sampler holds them, [B, ...].
        latents: of every image, as ``unpack`` gives them.

    Raises:
        CannotSteer: the end does something else with them.
    """
    numbers = torch.arange(like.numel(), dtype=torch.float32, device=like.device).view_as(like)
    ones = torch.ones_like(numbers)
    offset = unpack(0 * ones)
    scale = unpack(ones) - offset
    places = ((unpack(numbers) - offset) / scale).round()
    flat = places.flatten().long()
    if like.numel() >= _EXACT or flat.numel() != like.numel() or not torch.equal(flat.sort().values, numbers.flatten()):
        raise CannotSteer("its latents are not packed number by number", hint="Ask for pictures.")
    result = torch.empty_like(numbers).flatten()
    result[flat] = ((latents - offset) / scale).flatten()
    return result.view_as(like)
