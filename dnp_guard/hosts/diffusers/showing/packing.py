"""Turn latents of an autoencoder back into latents of the sampler, by learning how the pipeline's end unpacks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dnp_guard.errors import CannotSteer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_EXACT = 1 << 24
"""Below this every whole number is exact in float32."""


def packed(unpack: Callable[[Tensor], Tensor], like: Tensor, latents: Tensor) -> Tensor:
    """Return latents as the sampler holds them, [B, ...], from unscaled ones of an autoencoder.

    A pipeline's end moves every number to another place and scales it, so three replays find out where and how.

    Args:
        unpack: replays the pipeline's end, from the sampler's latents to the autoencoder's.
        like: latents as the sampler holds them, [B, ...].
        latents: latents of every image, in the form that ``unpack`` returns.

    Raises:
        CannotSteer: the end does something else with the numbers.
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
