"""The negative in the denoiser: hooks that live for one call.

``separate`` and ``orthogonal`` add delta to both halves of the batched output, which after classifier-free guidance
adds exactly delta whatever the scale; where each branch is an evaluation of its own, delta is added to the guided
output that the scheduler is given. The extra evaluation is a call of its own for the images concerned, so that the
others stay bit-identical; under ``guidance.batched`` it joins the host's own call, which is cheaper and gives that up.
``replace`` puts the negative into the unconditional half of the input and costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import arguments
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from dnp_guard.policy import Guidance
    from dnp_guard.steering.branch import Term

    Conditioning = Mapping[str, Tensor]
    """The denoiser's arguments that make up one negative; a dot in a name leads into a dictionary."""


class Injection:
    """Steers the images of one call by their negatives.

    Args:
        images: B, the size of the batch.
        settings: how a negative enters the guidance.
        enabled: whether the current context is the one whose call this is.
        failed: hears of an evaluation that raised; the step then goes on unsteered.
        rescaled: the guidance scale where the host rescales what it guided by the conditional half, otherwise None.
        batched: whether one evaluation holds both branches, the unconditional half first; otherwise each branch is an
            evaluation of its own, the unconditional last.
    """

    def __init__(
        self,
        images: int,
        settings: Guidance,
        enabled: Callable[[], bool],
        failed: Callable[[Exception], None],
        rescaled: Callable[[], float | None] = lambda: None,
        *,
        batched: bool = True,
    ) -> None:
        self.active: Mapping[int, Sequence[Term]] = {}
        self.evaluations = 0
        self._images = images
        self._replaces = settings.mode == "replace"
        self._together = batched and bool(settings.batched)
        self._branch = Branch(settings)
        self._due: list[tuple[int, Term]] | None = None
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
        if self._replaces or self._together:
            before = self._before if self._replaces else self._append
            self._handles.append(denoiser.register_forward_pre_hook(before, with_kwargs=True))
        if not self._replaces:
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
            for name, negative in _stacked([terms[0] for terms in self.active.values()]).items():
                value = arguments.at(kwargs, name).clone()
                self._expect_halves(value)
                value[rows.to(value.device)] = negative.to(value)
                kwargs = arguments.replaced(kwargs, name, value)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None
        return args, kwargs

    def _expect_halves(self, value: Tensor) -> None:
        if self._batched and value.shape[0] != 2 * self._images:
            raise CannotSteer("the denoiser ran without an unconditional half", hint="Use mode 'separate'.")

    def _append(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put the rows of the negatives behind those of the host's own evaluation."""
        self._due = None
        if not self.active or self._inside or not self._enabled():
            return None
        try:
            due = self._branch.due(self.active)
            if not due:
                self._due = due
                return None
            inputs = {**kwargs, "args": args}
            batch = arguments.at(kwargs, next(iter(due[0][1].conditioning))).shape[0]
            joined = arguments.appended(inputs, _third(inputs, due, batch), batch)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None
        self._due = due
        return joined.pop("args"), joined

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self.active or self._inside or not self._enabled():
            return None
        if not self._batched:
            self._evaluated.append((module, args, kwargs, output[0]))
            return None
        first, due, self._due = output[0], self._due, None
        e_n = None
        if due:
            first, e_n = first[: -len(due)], first[-len(due) :]
        try:
            return arguments.with_first(output, self._steered(module, args, kwargs, first, due, e_n))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return arguments.with_first(output, first) if due else None

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

    def _steered(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Tensor,
        due: list[tuple[int, Term]] | None,
        e_n: Tensor | None,
    ) -> Tensor:
        guided = output.shape[0] == 2 * self._images
        e_c = output[self._images :] if guided else None
        rows, delta = self._delta(module, args, kwargs, output, e_c, due, e_n)
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
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: Tensor,
        e_c: Tensor | None,
        due: list[tuple[int, Term]] | None = None,
        e_n: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The rows of the images concerned, and what is to be added to each.

        Args:
            module: the denoiser.
            args: of the host's own evaluation, as ``kwargs``.
            kwargs: likewise.
            output: of it, the unconditional half first.
            e_c: of the whole batch; None without guidance.
            due: what was evaluated together with it; None where nothing was asked yet.
            e_n: the evaluations of what was due.
        """
        if due is None:
            due = self._branch.due(self.active)
            e_n = self._evaluated_apart(module, {**kwargs, "args": args}, due, output.shape[0]) if due else None
        if e_n is not None:
            self.evaluations += len(due)
            self._branch.keep(due, e_n, output)
        rows = torch.tensor(list(self.active), device=output.device)
        return rows, self._branch.delta(self.active, output, e_c)

    def _evaluated_apart(
        self, module: nn.Module, inputs: dict[str, Any], due: Sequence[tuple[int, Term]], batch: int
    ) -> Tensor:
        inputs = _third(inputs, due, batch)
        given = inputs.pop("args")
        self._inside = True
        try:
            e_n: Tensor = module(*given, **inputs)[0]
        finally:
            self._inside = False
        return e_n


def _third(inputs: dict[str, Any], due: Sequence[tuple[int, Term]], batch: int) -> dict[str, Any]:
    """The inputs of the images concerned, with their negatives in place of the empty prompt."""
    conditioning = _stacked([term for _, term in due])
    inputs = arguments.rows_of(inputs, torch.tensor([index for index, _ in due]), batch)
    for name, negative in conditioning.items():
        inputs = arguments.replaced(inputs, name, negative.to(arguments.at(inputs, name)))
    return inputs


def _stacked(terms: Sequence[Term]) -> dict[str, Tensor]:
    """The arguments that make up some terms, one row a term."""
    return {name: torch.stack([term.conditioning[name] for term in terms]) for name in terms[0].conditioning}
