"""Put negatives into the denoiser's evaluations, where the proof of the call has shown that they belong.

Guidance mode ``separate`` adds delta, the scaled difference between the negative and the unconditional prediction, to
the guided prediction. If the pipeline rescales or normalises the guided prediction, delta has to enter before that:
delta divided by the weight of the unconditional branch is added to that branch. The negatives are evaluated apart from
the pipeline's own evaluation, so that images that are not steered stay bit-identical; with ``guidance.batched`` both
are one evaluation, which is cheaper and does not keep them so. In mode ``attention``, the same is done in addition for
images whose negative has a scale.

Guidance mode ``replace`` puts the negative into the unconditional rows of the input and costs nothing; a negative of
another length is evaluated separately, and its output replaces the output of these rows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import third_branch
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.steering.branch import Branch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.arithmetic import Arithmetic
    from dnp_guard.hosts.diffusers.asking.places import Places
    from dnp_guard.hosts.diffusers.attending.injection import AttentionInjection
    from dnp_guard.hosts.diffusers.steered import SteeredCall
    from dnp_guard.policy import Guidance
    from dnp_guard.steering.branch import Term

CONTEXT = "dnp_guard"
"""Name of the cache context in which negatives are evaluated, apart from the pipeline's own cache."""


class Injection:
    """Steers the images of one call away from their negative prompts.

    Args:
        settings: guidance settings of the policy.
        places: where a negative's words go in the denoiser's arguments.
        arithmetic: how the pipeline combines its guidance branches.
        channels: dimension of the denoiser's output that holds channels, unless the output is a sequence of tokens.
        call: the running call.
        attention: evaluates the denoiser, steered in attention space; None if nothing is steered there.
    """

    def __init__(
        self,
        settings: Guidance,
        places: Places,
        arithmetic: Arithmetic,
        channels: int,
        call: SteeredCall,
        attention: AttentionInjection | None = None,
    ) -> None:
        self._call = call
        self._attention = attention
        self._places = places
        self._arithmetic = arithmetic
        self._replaces = settings.mode == "replace"
        self._together = bool(settings.batched) and not self._replaces and third_branch.joins(places)
        self._branch = Branch(settings, channels)
        self._evaluated = 0
        self._delta: tuple[Tensor, Tensor] | None = None
        self._moved = False
        self._alone: Evaluation | None = None
        self._context: Mapping[str, Any] = {}

    @property
    def _active(self) -> Mapping[int, Term]:
        active = self._call.held.active
        if self._attention is None:
            return active
        return {image: term for image, term in active.items() if term.scale}

    def in_context(self, kwargs: Mapping[str, Any]) -> None:
        """Remember the arguments with which the pipeline opens a cache context of its denoiser."""
        self._context = dict(kwargs)

    def evaluate(self, evaluation: Evaluation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate the denoiser for the pipeline, steered by the active negatives; return the output.

        Args:
            evaluation: the evaluation to make, with its arguments by name.
            args: the positional arguments as the pipeline passed them.
            kwargs: the keyword arguments as the pipeline passed them.
        """
        place, self._evaluated = self._evaluated, self._evaluated + 1
        if not self._active:
            return self._plainly(evaluation, args, kwargs)
        if place != self._places.place:
            output = self._plainly(evaluation, args, kwargs)
            self._alone = replace(evaluation, output=output)
            return output
        if self._replaces:
            return self._replaced(evaluation, args, kwargs)
        if self._together and not self._moved:
            try:
                return self._joined(evaluation, args, kwargs)
            except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
                self._call.failed(error)
        output = self._plainly(evaluation, args, kwargs)
        try:
            return self._steered(evaluation, output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._call.failed(error)
            return output

    def _plainly(self, evaluation: Evaluation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the pipeline's own evaluation, steered in attention space if the call is steered there."""
        if self._attention is not None:
            return self._attention.evaluate(evaluation, args, kwargs)
        return evaluation.part(*args, **kwargs)

    def guided(self, output: Tensor) -> Tensor:
        """Steer the guided prediction of a step; return it unchanged if nothing is steered."""
        evaluated, self._evaluated = self._evaluated, 0
        delta, self._delta, moved, self._moved = self._delta, None, self._moved, False
        alone, self._alone = self._alone, None
        if not self._active:
            self._branch.due(self._active)  # drop earlier evaluations: they must not be used again after a pause
            return output
        if self._replaces:
            if evaluated <= self._places.place and not moved:
                self._call.failed(_no_slot())
            return output
        try:
            if not moved and alone is not None:  # some pipelines turn off guidance at some steps
                self._steered(alone, alone.output)
                delta, self._delta, self._moved = self._delta, None, False
            if delta is None:
                return output
            rows, value = delta
            steered = output.clone()
            steered[rows] += self._arithmetic.sign * value.to(output)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._call.failed(error)
            return output
        return steered

    def _steered(self, evaluation: Evaluation, output: Any) -> Any:
        """Compute delta for an evaluation of the pipeline; add it to the output, or keep it for :meth:`guided`."""
        first = arguments.first_of(output)
        start = self._own_rows(first)
        due = self._branch.due(self._active, begins=self._call.begins_step())
        e_n = self._apart(evaluation, first, due) if due else None
        return self._taken(output, first, start, due, e_n)

    def _taken(
        self, output: Any, first: Tensor, own: Sequence[int], due: Sequence[tuple[int, Term]], e_n: Tensor | None
    ) -> Any:
        cut, weight = self._arithmetic.cut, self._arithmetic.weight
        if e_n is not None:
            self._branch.keep(due, cut(e_n), cut(first[list(own)]))
        images = list(self._active)
        delta = self._branch.delta(self._active)
        self._moved = True
        if weight is None or self._alone_in_step(first):
            self._delta = torch.tensor(images, device=first.device), delta
            return output
        steered = first.clone()
        steered[[own[image] for image in images]] += self._arithmetic.spread(delta / weight, steered)
        return arguments.with_first(output, steered)

    def _alone_in_step(self, first: Tensor) -> bool:
        """Return whether an evaluation is the only one of its step, without guidance."""
        return len(first) != self._places.batch or self._evaluated == 0

    def _own_rows(self, first: Tensor) -> Sequence[int]:
        """Return the batch rows, one per image, whose predictions are subtracted from those of the negatives.

        Raises:
            CannotSteer: the rows cannot be identified.
        """
        if len(first) == self._places.batch:
            return self._places.rows
        if len(first) == len(self._places.rows):  # some pipelines turn off guidance at some steps
            return range(len(first))
        raise CannotSteer(
            f"the denoiser evaluated {len(first)} rows for {len(self._places.rows)} images", hint="Report this."
        )

    def _apart(self, evaluation: Evaluation, first: Tensor, due: Sequence[tuple[int, Term]]) -> Tensor:
        """Evaluate negatives apart from the pipeline's own evaluation; return one prediction per negative, in order."""
        rows: dict[int, Tensor] = {}
        own = self._own_rows(first)
        with self._call.evaluating():
            for places in third_branch.alike(due):
                alike = [due[place] for place in places]
                given = third_branch.inputs(evaluation, self._places, len(first), own, alike * self._places.copies)
                with self._cached_apart(evaluation.part):
                    e_n = arguments.first_of(evaluation.again(given))[: len(alike)]
                rows.update(zip(places, e_n, strict=True))
        return torch.stack([rows[place] for place in range(len(due))])

    def _cached_apart(self, part: Any) -> AbstractContextManager[Any]:
        if not getattr(part, "is_cache_enabled", False):
            return nullcontext()
        context: AbstractContextManager[Any] = part.cache_context(CONTEXT, **self._context)
        return context

    def _joined(self, evaluation: Evaluation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate the pipeline's rows and the negatives' in one batch, or apart if their prompts differ in length."""
        due = self._branch.due(self._active, begins=self._call.begins_step())
        rows = third_branch.rows_given(evaluation)
        own = self._places.rows if rows == self._places.batch else range(rows)
        given = third_branch.joined(evaluation, self._places, rows, own, due) if due else None
        if given is None:
            output = evaluation.part(*args, **kwargs)
            first = arguments.first_of(output)
            return self._taken(output, first, own, due, self._apart(evaluation, first, due) if due else None)
        output = evaluation.again(given)
        first = arguments.first_of(output)
        return self._taken(arguments.with_first(output, first[:rows]), first[:rows], own, due, first[rows:])

    def _replaced(self, evaluation: Evaluation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate the denoiser for the pipeline, with the negatives in the unconditional rows."""
        try:
            if third_branch.rows_given(evaluation) != self._places.batch:
                raise _no_slot()  # noqa: TRY301 (reported like any other failure)
            due = list(self._active.items())
            given = third_branch.overwritten(evaluation, self._places, due)
            if given is not None:
                self._moved = True
                return evaluation.again(given)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._call.failed(error)
            return evaluation.part(*args, **kwargs)
        output = evaluation.part(*args, **kwargs)
        try:
            first = arguments.first_of(output)
            e_n = self._apart(evaluation, first, due)
            replaced = first.clone()
            replaced[[self._places.rows[image] for image, _ in due]] = e_n.to(replaced)
            self._moved = True
            return arguments.with_first(output, replaced)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._call.failed(error)
            return output


def _no_slot() -> CannotSteer:
    return CannotSteer("the denoiser ran without an unconditional half", hint="Use mode 'separate'.")
