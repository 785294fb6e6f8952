"""The negative in the denoiser: hooks that live for one call.

``separate`` adds delta to every branch of the batched output. What a host makes of its branches is a sum whose weights
add up to one, so that after its guidance exactly delta is added whatever the scales; where each branch is an evaluation
of its own, delta is added to the guided output that the scheduler is given. Where the host normalises what it guided,
the unconditional branch alone is moved, by delta over its weight. The extra evaluation is a call of its own for the
images concerned, so that the others stay bit-identical; under ``guidance.batched`` it joins the host's own call, which
is cheaper and gives that up. ``replace`` puts the negative into the unconditional slot of the input and costs nothing;
where a negative may be of another length, it is evaluated apart and takes the slot's output.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import arguments, third
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from dnp_guard.hosts.diffusers.families import Family
    from dnp_guard.policy import Guidance
    from dnp_guard.steering.branch import Term

    Conditioning = Mapping[str, Tensor | None]
    """The denoiser's arguments that make up one negative; a dot in a name leads into a dictionary."""


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """One evaluation of the denoiser by the host."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor


class Injection:
    """Steers the images of one call by their negatives.

    Args:
        images: B, the size of the batch.
        settings: how a negative enters the guidance.
        family: how this kind of pipeline evaluates its branches.
        enabled: whether the current context is the one whose call this is.
        failed: hears of an evaluation that raised; the step then goes on unsteered.
        order: the branches of this call, as ``Family.order``.
        weight: what the unconditional branch counts where the host normalises what it guided, otherwise None.
        timed: around every evaluation that is the guard's own; one in the host's batch cannot be told apart.
        begins: whether the evaluation that runs begins a step, and is no sub-step of one.
    """

    def __init__(
        self,
        images: int,
        settings: Guidance,
        family: Family,
        enabled: Callable[[], bool],
        failed: Callable[[Exception], None],
        order: Callable[[], str],
        weight: Callable[[], float | None] = lambda: None,
        timed: Callable[[], AbstractContextManager[None]] = nullcontext,
        begins: Callable[[], bool] = lambda: True,
    ) -> None:
        self.active: Mapping[int, Term] = {}
        self.evaluations = 0
        self._images = images
        self._family = family
        self._replaces = settings.mode == "replace"
        self._together = bool(settings.batched) and family.joins
        self._branch = Branch(settings, family.channels)
        self._due: list[tuple[int, Term]] | None = None
        self._since_step = 0
        self._evaluated: list[_Evaluation] = []
        self._done = False
        self._enabled = enabled
        self._failed = failed
        self._order = order
        self._weight = weight
        self._timed = timed
        self._begins = begins
        self._inside = False
        self._lists: dict[str, list[Any]] = {}
        self._handles: list[Any] = []

    def install(self, denoiser: nn.Module) -> None:
        """Hook a denoiser."""
        into_input = self._replaces and self._family.fixed
        if into_input or (self._together and not self._replaces):
            before = self._before if into_input else self._append
            self._handles.append(denoiser.register_forward_pre_hook(before, with_kwargs=True))
        if not into_input:
            self._handles.append(denoiser.register_forward_pre_hook(self._kept, with_kwargs=True))
            self._handles.append(denoiser.register_forward_hook(self._after, with_kwargs=True))

    def _kept(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep the lists among the inputs as they are: some denoisers use them up."""
        if self.active and not self._inside and self._enabled():
            self._lists = {name: list(value) for name, value in kwargs.items() if isinstance(value, list)}

    def remove(self) -> None:
        """Take every hook away; safe to call again."""
        while self._handles:
            self._handles.pop().remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put the negatives into the unconditional slot of the input."""
        if not self.active or not self._enabled():
            return None
        self._since_step += 1
        if not self._family.batched and self._order()[self._since_step - 1 : self._since_step] != "u":
            return None
        try:
            terms = list(self.active.values())
            inputs = arguments.named(module, args, kwargs, terms[0].conditioning)
            batch = self._images
            if self._family.batched:
                batch = _rows(args, kwargs)
                for start in self._starts("u", self._branches(batch)):
                    rows = [index + start for index in self.active]
                    inputs = third.overwritten(inputs, rows, terms, batch, self._family)
            else:
                inputs = third.overwritten(inputs, list(self.active), terms, batch, self._family)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None
        return inputs.pop("args"), inputs

    def _branches(self, rows: int) -> str:
        """The branches that one evaluation of so many rows holds.

        Raises:
            CannotSteer: they cannot be told apart.
        """
        count, order = rows // self._images, self._order()
        if count == 1:
            order = "c"
        elif count == len(order) - 1:
            order = order.replace("u", "")
        if len(order) != count or rows % self._images:
            raise CannotSteer(f"the denoiser evaluated {rows} rows for {self._images} images", hint="Report this.")
        if self._replaces and "u" not in order:
            raise _no_slot()
        return order

    def _starts(self, branch: str, order: str) -> list[int]:
        return [place * self._images for place, each in enumerate(order) if each == branch]

    def _append(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Put the rows of the negatives behind those of the host's own evaluation."""
        self._due = None
        if not self.active or self._inside or not self._enabled():
            return None
        try:
            due = self._branch.due(self.active, begins=self._begins())
            if not due:
                self._due = due
                return None
            inputs = arguments.named(module, args, kwargs, due[0][1].conditioning)
            batch = _rows(args, kwargs)
            start = (self._starts("u", self._branches(batch)) or [0])[0]
            more = self._under_negatives(inputs, due, batch, start)
            joined = arguments.appended(inputs, more, batch)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return None
        self._due = due
        return joined.pop("args"), joined

    def _under_negatives(
        self, inputs: dict[str, Any], due: Sequence[tuple[int, Term]], batch: int, start: int
    ) -> dict[str, Any]:
        rows, terms = [index + start for index, _ in due], [term for _, term in due]
        return third.inputs(inputs, rows, terms, batch, self._family)

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if not self.active or self._inside or not self._enabled():
            return None
        due, self._due = self._due, None
        if due is None:  # otherwise the negatives are in the inputs
            kwargs, self._lists = {**kwargs, **self._lists}, {}
        first = None
        try:
            first = arguments.first_of(output)
            if not self._family.batched:
                steered = self._noted(_Evaluation(module, args, kwargs, first))
                return None if steered is None else arguments.with_first(output, steered)
            e_n = None
            if due:
                first, e_n = first[: -len(due)], first[-len(due) :]
            return arguments.with_first(output, self._steered(_Evaluation(module, args, kwargs, first), due, e_n))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return arguments.with_first(output, first) if due and first is not None else None

    def _noted(self, evaluation: _Evaluation) -> Tensor | None:
        """Keep one of a step's evaluations, and steer it where that cannot wait for the guided output."""
        self._evaluated.append(evaluation)
        order = self._order()
        if order[len(self._evaluated) - 1 : len(self._evaluated)] != "u":
            return None
        if self._replaces:
            return self._replaced(evaluation, 0)
        weight = self._weight()
        if weight is None:
            return None
        self._done = True
        rows, delta = self._delta(evaluation, 0, evaluation.output)
        steered = evaluation.output.clone()
        steered[rows] += delta / weight
        return steered

    def guided(self, output: Tensor) -> Tensor:
        """Steer the guided output of a step whose branches were evaluations of their own; otherwise the very same."""
        evaluated, done = self._evaluated, self._done
        count, self._since_step = max(self._since_step, len(evaluated)), 0
        if self.active and self._replaces and not self._family.batched and count <= self._order().find("u"):
            self._failed(_no_slot())  # some pipelines leave guidance out at some steps
        if not self.active:
            self._branch.due(self.active)  # what was evaluated before does not serve steps after a pause
        try:
            if not self.active or not evaluated or done or self._replaces:
                return output
            place = self._order().find("u")
            evaluation = evaluated[place if 0 <= place < len(evaluated) else 0]
            rows, delta = self._delta(evaluation, 0, evaluation.output)
            if delta.shape[1:] != output.shape[1:]:  # a picture to follow is tokens behind those of the latents
                delta = delta[:, : output.shape[1]]
            steered = output.clone()
            steered[rows] += self._family.sign * delta.to(output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._failed(error)
            return output
        finally:
            self._evaluated, self._done = [], False
        return steered

    def _steered(
        self, evaluation: _Evaluation, due: list[tuple[int, Term]] | None = None, e_n: Tensor | None = None
    ) -> Tensor:
        """The output of an evaluation of every branch with delta added."""
        output = evaluation.output
        order = self._branches(output.shape[0])
        start = (self._starts("u", order) or self._starts("c", order))[0]
        if self._replaces:
            return self._replaced(evaluation, start)
        e_u = output[start : start + self._images]
        rows, delta = self._delta(evaluation, start, e_u, due, e_n)
        steered = output.clone()
        weight = self._weight() if "u" in order else None
        if weight is not None:  # u + d/(1 - g) gives + d after guidance, and leaves the conditional half to rescale by
            steered[rows + start] += delta / weight
            return steered
        for place in range(len(order)):
            steered[rows + place * self._images] += delta
        return steered

    def _replaced(self, evaluation: _Evaluation, start: int) -> Tensor:
        """The output of an evaluation with that of the negatives in its unconditional slot."""
        due = list(self.active.items())
        replaced = evaluation.output.clone()
        replaced[[index + start for index, _ in due]] = self._evaluated_apart(evaluation, due, start).to(replaced)
        return replaced

    def _delta(
        self,
        evaluation: _Evaluation,
        start: int,
        e_u: Tensor,
        due: list[tuple[int, Term]] | None = None,
        e_n: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The images concerned, and what is to be added to each.

        Args:
            evaluation: the host's own.
            start: its first row of the unconditional branch.
            e_u: that branch, [B, ...].
            due: what was evaluated together with it; None where nothing was asked yet.
            e_n: the evaluations of what was due.
        """
        if due is None:
            due = self._branch.due(self.active, begins=self._begins())
            e_n = self._evaluated_apart(evaluation, due, start) if due else None
        if e_n is not None:
            self.evaluations += len(due)
            self._branch.keep(due, e_n, e_u)
        rows = torch.tensor(list(self.active), device=e_u.device)
        return rows, self._branch.delta(self.active)

    def _evaluated_apart(self, evaluation: _Evaluation, due: Sequence[tuple[int, Term]], start: int) -> Tensor:
        """Evaluate negatives, those of one shape together, in the order given."""
        rows: dict[int, Tensor] = {}
        with self._timed():
            for places in third.alike(due):
                e_n = self._evaluated_together(evaluation, [due[place] for place in places], start)
                rows.update(zip(places, e_n, strict=True))
        return torch.stack([rows[place] for place in range(len(due))])

    def _evaluated_together(self, evaluation: _Evaluation, due: Sequence[tuple[int, Term]], start: int) -> Tensor:
        inputs = arguments.named(evaluation.module, evaluation.args, evaluation.kwargs, due[0][1].conditioning)
        batch = evaluation.output.shape[0]
        # Perturbed attention takes the rows of an evaluation apart by branch.
        copies = batch // self._images if "p" in self._order() else 1
        given = self._under_negatives(inputs, [*due] * copies, batch, start)
        self._inside = True
        try:
            return arguments.first_of(evaluation.module(*given.pop("args"), **given))[: len(due)]
        finally:
            self._inside = False


def _no_slot() -> CannotSteer:
    return CannotSteer("the denoiser ran without an unconditional half", hint="Use mode 'separate'.")


def _rows(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Rows of an evaluation: how many latents it is given."""
    latents = args[0] if args else kwargs["hidden_states"] if "hidden_states" in kwargs else kwargs["sample"]
    return len(latents)
