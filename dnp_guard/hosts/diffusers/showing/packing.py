"""Turn latents in an autoencoder's form back into the sampler's form, by learning how the pipeline unpacks them."""

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
    """Return latents in the sampler's form, [B, ...], from unscaled latents in the autoencoder's form.

    After its last step, a pipeline moves every number of its latents to another place and scales it. Three replays of
    that code, with made-up latents, show where each number goes and how it is scaled.

    Args:
        unpack: replays the pipeline's code after the last step, from the sampler's latents to the autoencoder's.
        like: latents in the sampler's form, [B, ...].
        latents: latents of every image, in the form that ``unpack`` returns.

    Raises:
        CannotSteer: the code does something else with the numbers.
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
