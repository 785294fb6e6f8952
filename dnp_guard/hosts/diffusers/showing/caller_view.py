"""Limit what a caller's own step callback sees, as the policy's ``preview.user_previews`` requires.

A callback that decodes latents can show the image to the user while it is denoised. If a category was found in an
image, the callback gets empty or blurred latents for it; the sampler goes on with the true ones, whatever the callback
returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from dnp_guard.generation.outcomes import UserPreviews

_CELLS = 4
"""Number of cells per side into which latents are divided for blurring; only the mean of every cell remains."""
_PLANES = 4
_ORDER = ("allow", "blur", "withhold")


def covering(
    callback: Callable[..., Any],
    shown: Callable[[], Sequence[UserPreviews]],
    aside: Callable[[], AbstractContextManager[None]],
) -> Callable[..., Any]:
    """Wrap a ``callback_on_step_end``, so that it gets empty or blurred latents for images that it must not see.

    Args:
        callback: the caller's own callback.
        shown: returns how much of each image the callback may see now.
        aside: puts the pipeline's own parts back in place of the guard's, while the callback runs.
    """

    def called(*args: Any) -> Any:
        with aside():
            return callback(*args)

    def covered(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        limits = shown()
        true = {name: value for name, value in tensors.items() if _pictures(name, value)}
        if all(limit == "allow" for limit in limits):
            return called(pipe, step, timestep, tensors)
        given = {name: cover(value, limits) for name, value in true.items()}
        returned = called(pipe, step, timestep, {**tensors, **given})
        if isinstance(returned, dict):
            for name in true.keys() & returned.keys():
                returned[name] = _restored(returned[name], given[name], true[name], limits)
        return returned

    return covered


def covering_latents(
    callback: Callable[..., Any],
    shown: Callable[[], Sequence[UserPreviews]],
    aside: Callable[[], AbstractContextManager[None]],
) -> Callable[..., Any]:
    """Wrap a callback of the older form ``callback(step, timestep, latents)`` as :func:`covering` wraps a newer one."""

    def covered(step: int, timestep: Any, latents: Tensor) -> Any:
        with aside():
            return callback(step, timestep, cover(latents, shown()))

    return covered


def cover(latents: Tensor, limits: Sequence[UserPreviews]) -> Tensor:
    """Empty or blur the latents of some images beyond recognition; return the same tensor if none are affected.

    Args:
        latents: [B, C, H, W] or [B, C, F, H, W], or packed, [B, H W, C].
        limits: limit per image of the batch; if their number is not B, the strictest applies to all.
    """
    rows = _rows(latents, limits)
    if all(limit == "allow" for limit in rows):
        return latents
    covered = latents.clone()
    for index, limit in enumerate(rows):
        if limit == "withhold":
            covered[index] = 0
        elif limit == "blur":
            covered[index] = _blurred(latents[index])
    return covered


def _restored(returned: Tensor, given: Tensor, true: Tensor, limits: Sequence[UserPreviews]) -> Tensor:
    """Return the latents for the sampler: the callback's for images that it may see, the true ones for the others."""
    if returned is given:
        return true
    rows = torch.tensor([limit != "allow" for limit in _rows(true, limits)], device=true.device)
    returned = returned.clone()
    returned[rows] = true[rows].to(returned)
    return returned


def _rows(latents: Tensor, limits: Sequence[UserPreviews]) -> Sequence[UserPreviews]:
    if latents.shape[0] == len(limits):
        return limits
    strictest = max(limits, key=_ORDER.index)
    return [strictest] * latents.shape[0]


def _pictures(name: str, value: Any) -> bool:
    """Return whether a tensor that a callback can request may show pictures, as latents do."""
    return isinstance(value, torch.Tensor) and (name == "latents" or value.ndim >= _PLANES)


def _blurred(latents: Tensor) -> Tensor:
    if latents.ndim + 1 < _PLANES:
        return latents.mean(0, keepdim=True).expand_as(latents)
    planes = latents.flatten(0, -3)[None].float()
    cells = F.adaptive_avg_pool2d(planes, _CELLS)
    return F.interpolate(cells, latents.shape[-2:], mode="bilinear")[0].view(latents.shape).to(latents.dtype)
