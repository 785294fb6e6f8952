"""The negative in the denoiser: hooks that live for one call.

``separate`` and ``orthogonal`` add delta to both halves of the batched output, which after classifier-free guidance
adds exactly delta whatever the scale; where each branch is an evaluation of its own, delta is added to the guided
output that the scheduler is given. The extra evaluation is a call of its own for the images concerned, so that the
others stay bit-identical. ``replace`` puts the negative into the unconditional half of the input and costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.steering import guidance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from dnp_guard.types import GuidanceMode

    Conditioning = Mapping[str, Tensor]
    """The denoiser's arguments that make up one negative; a dot in a name leads into a dictionary."""


class Injection:
    """Steers the images of one call by their negatives.

    Args:
        images: B, the size of the batch.
        mode: how a negative enters the guidance.
        enabled: whether the current context is the one whose call this is.
        failed: hears of an evaluation that raised; the step then goes on unsteered.
        rescaled: the guidance scale where the host rescales what it guided by the conditional half, otherwise None.
        batched: whether one evaluation holds both branches, the unconditional half first; otherwise each branch is an
            evaluation of its own, the unconditional last.
    """

    def __init__(
        self,
        images: int,
        mode: GuidanceMode,
        enabled: Callable[[], bool],
        failed: Callable[[Exception], None],
        rescaled: Callable[[], float | None] = lambda: None,
        *,
        batched: bool = True,
    ) -> None:
        self.active: Mapping[int, tuple[Conditioning, float]] = {}
        self.evaluations = 0
        self._images = images
        self._mode = mode
        self._batched = batched
        self._since_step = 0
        self._evaluated: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Tensor]] = []
        self._enabled = enabled
        self._failed = failed
        self._rescaled = rescaled
        self._inside = False
        self._handles: list[Any] = []

    def install(self, denoiser: nn.Module) -> None:
        """Hook a denoiser."""
        if self._mode == "replace":
            self._handles.append(denoiser.register_forward_pre_hook(self._before, with_kwargs=True))
        else:
            self._handles.append(denoiser.register_forward_hook(self._after, with_kwargs=True))

    def remove(self) -> None:
        """Take every hook away; safe to call again."""
        while self._handles:
            self._handles.pop().remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self.active or not self._enabled():
            return None
        self._since_step += 1
        if not self._batched and self._since_step == 1:  # the user's prompt
            return None
        try:
            rows = torch.tensor(list(self.active))
            for name, negative in self._negatives().items():
                value = _at(kwargs, name).clone()
                self._expect_halves(value)
                value[rows.to(value.device)] = negative.to(value)
                kwargs = _with(kwargs, name, value)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None
        return args, kwargs

    def _expect_halves(self, value: Tensor) -> None:
        if self._batched and value.shape[0] != 2 * self._images:
            raise CannotSteer("the denoiser ran without an unconditional half", hint="Use mode 'separate'.")

    def _negatives(self) -> dict[str, Tensor]:
        """The arguments that make up the negatives of the images concerned, one row an image."""
        each = [conditioning for conditioning, _ in self.active.values()]
        return {name: torch.stack([conditioning[name] for conditioning in each]) for name in each[0]}

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self.active or self._inside or not self._enabled():
            return None
        if not self._batched:
            self._evaluated.append((module, args, kwargs, output[0]))
            return None
        try:
            return _with_first(output, self._steered(module, args, kwargs, output[0]))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None

    def guided(self, output: Tensor) -> Tensor:
        """Steer the guided output of a step whose branches were evaluations of their own; otherwise the very same."""
        evaluated, self._evaluated, self._since_step = self._evaluated, [], 0
        if not self.active or not evaluated:
            return output
        try:
            e_c = evaluated[0][-1] if len(evaluated) > 1 else None
            rows, delta = self._delta(*evaluated[-1], e_c)
            steered = output.clone()
            steered[rows] += delta.to(output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return output
        return steered

    def _steered(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
        guided = output.shape[0] == 2 * self._images
        e_c = output[self._images :] if guided else None
        rows, delta = self._delta(module, args, kwargs, output, e_c)
        steered = output.clone()
        scale = self._rescaled() if guided else None
        if scale is not None:  # u + d/(1 - g) gives + d after guidance, and leaves the conditional half to rescale by
            steered[rows] += delta / (1 - scale)
            return steered
        steered[rows] += delta
        if guided:
            steered[rows + self._images] += delta
        return steered

    def _delta(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor, e_c: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the negatives of the images concerned; their rows, and what is to be added to each."""
        rows = torch.tensor(list(self.active), device=output.device)
        inputs = _rows({**kwargs, "args": args}, rows, output.shape[0])
        for name, negative in self._negatives().items():
            inputs = _with(inputs, name, negative.to(_at(inputs, name)))
        arguments = inputs.pop("args")
        self._inside = True
        try:
            e_n = module(*arguments, **inputs)[0]
        finally:
            self._inside = False
        self.evaluations += len(self.active)
        scales = torch.tensor([scale for _, scale in self.active.values()], device=output.device, dtype=output.dtype)
        e_u = output[rows]
        delta = guidance.separate(e_n, e_u, scales.view(-1, *[1] * (output.ndim - 1)))
        if self._mode == "orthogonal" and e_c is not None:
            delta = guidance.orthogonal(delta, e_c[rows], e_u)
        return rows, delta


def _rows(value: Any, rows: Tensor, batch: int) -> Any:
    """The given rows of every tensor of that batch size inside a value."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: _rows(each, rows, batch) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_rows(each, rows, batch) for each in value)
    return value


def _at(arguments: Mapping[str, Any], name: str) -> Any:
    value: Any = arguments
    for part in name.split("."):
        value = value[part]
    return value


def _with(arguments: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The arguments with one of them, perhaps inside a dictionary, replaced."""
    first, _, rest = name.partition(".")
    return {**arguments, first: _with(arguments[first], rest, value) if rest else value}


def _with_first(output: Any, first: Tensor) -> Any:
    if isinstance(output, tuple):
        return (first, *output[1:])
    output[next(iter(output.keys()))] = first
    return output
