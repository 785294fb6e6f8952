"""What a caller's own step callback may see: ``preview.user_previews``.

A callback that decodes latents shows its user the image while it is denoised. Where something was found in an image the
callback is given other latents for it, and the sampler goes on with the true ones, whatever the callback returns.
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
"""What is left of a blurred image's latents: the mean of so many areas a side."""
_PLANES = 4
_ORDER = ("allow", "blur", "withhold")


def covering(
    callback: Callable[..., Any],
    shown: Callable[[], Sequence[UserPreviews]],
    aside: Callable[[], AbstractContextManager[None]],
) -> Callable[..., Any]:
    """A ``callback_on_step_end`` that sees no more than it may.

    Args:
        callback: the caller's own.
        shown: what may be seen of each image now.
        aside: makes the pipeline what it is without the guard, for as long as the callback runs.
    """

    def called(*args: Any) -> Any:
        with aside():
            return callback(*args)

    def covered(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
        told = shown()
        true = {name: value for name, value in tensors.items() if _pictures(name, value)}
        if all(each == "allow" for each in told):
            return called(pipe, step, timestep, tensors)
        given = {name: cover(value, told) for name, value in true.items()}
        returned = called(pipe, step, timestep, {**tensors, **given})
        if isinstance(returned, dict):
            for name in true.keys() & returned.keys():
                returned[name] = _restored(returned[name], given[name], true[name], told)
        return returned

    return covered


def covering_latents(
    callback: Callable[..., Any],
    shown: Callable[[], Sequence[UserPreviews]],
    aside: Callable[[], AbstractContextManager[None]],
) -> Callable[..., Any]:
    """The same for the older ``callback(step, timestep, latents)``."""

    def covered(step: int, timestep: Any, latents: Tensor) -> Any:
        with aside():
            return callback(step, timestep, cover(latents, shown()))

    return covered


def cover(latents: Tensor, told: Sequence[UserPreviews]) -> Tensor:
    """Latents with those of some images emptied or blurred beyond recognition; the very same where none are.

    Args:
        latents: [B, C, H, W] or [B, C, F, H, W], or packed, [B, H W, C].
        told: for each image of the batch; where B is another number, the strictest counts for all.
    """
    rows = _rows(latents, told)
    if all(each == "allow" for each in rows):
        return latents
    covered = latents.clone()
    for index, each in enumerate(rows):
        if each == "withhold":
            covered[index] = 0
        elif each == "blur":
            covered[index] = _blurred(latents[index])
    return covered


def _restored(returned: Tensor, given: Tensor, true: Tensor, told: Sequence[UserPreviews]) -> Tensor:
    """What the sampler goes on with: what the callback made of an image that it saw, the truth of the others."""
    if returned is given:
        return true
    rows = torch.tensor([each != "allow" for each in _rows(true, told)], device=true.device)
    returned = returned.clone()
    returned[rows] = true[rows].to(returned)
    return returned


def _rows(latents: Tensor, told: Sequence[UserPreviews]) -> Sequence[UserPreviews]:
    if latents.shape[0] == len(told):
        return told
    strictest = max(told, key=_ORDER.index)
    return [strictest] * latents.shape[0]


def _pictures(name: str, value: Any) -> bool:
    """Whether a tensor that a callback may ask for can be decoded."""
    return isinstance(value, torch.Tensor) and (name == "latents" or value.ndim >= _PLANES)


def _blurred(latents: Tensor) -> Tensor:
    if latents.ndim + 1 < _PLANES:
        return latents.mean(0, keepdim=True).expand_as(latents)
    planes = latents.flatten(0, -3)[None].float()
    cells = F.adaptive_avg_pool2d(planes, _CELLS)
    return F.interpolate(cells, latents.shape[-2:], mode="bilinear")[0].view(latents.shape).to(latents.dtype)
