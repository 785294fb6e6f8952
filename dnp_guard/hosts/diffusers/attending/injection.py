"""Steer by negatives in the attention over the prompt, at every evaluation of the denoiser.

Cross-attention layers read the negative in addition to the prompt, which costs little. Joint attention has a text
stream that changes from layer to layer, so the negative's stream is evaluated beside the prompt's: one more row per
steered image, or two if other images of the batch have to stay bit-identical. The words of each category form a
negative of their own, which is read or evaluated separately; the negatives steer one after the other.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers import third_branch
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.arguments import Rows
from dnp_guard.hosts.diffusers.attending.stages import Asking, Crossing, Joining, Moved, Pairs, StageReached, Steered
from dnp_guard.hosts.diffusers.attending.watched import Plain, WatchedDenoiser

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.places import Places, Slot
    from dnp_guard.hosts.diffusers.attending.reading import Reach
    from dnp_guard.hosts.diffusers.steered import SteeredCall
    from dnp_guard.steering.branch import Term

    Own = Mapping[int, int]
    """Batch row of each image, by the image's index."""
    Active = Mapping[int, Sequence[Term]]
    """The negatives that steer each image, one after the other, by the image's index."""


class AttentionInjection:
    """Steers the images of one call in attention space.

    Args:
        reach: attention layers that read the prompt.
        watched: copies of the denoisers, whose attention layers can be steered, by name.
        places: where a negative's words go in the denoiser's arguments.
        prompts: evaluations of the first step that hold the prompt, with the batch rows that hold it, in the order of
            the images.
        call: the running call.
    """

    def __init__(
        self,
        reach: Reach,
        watched: Mapping[str, WatchedDenoiser],
        places: Places,
        prompts: Sequence[tuple[Evaluation, Sequence[int]]],
        call: SteeredCall,
    ) -> None:
        self._reach = reach
        self._watched = dict(watched)
        self._places = places
        self._prompts = prompts
        self.call = call
        self._known: dict[Any, Steered] = {}
        self._moves = False

    def evaluate(self, evaluation: Evaluation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Evaluate the denoiser for the pipeline, steered in attention; return the output.

        Args:
            evaluation: the evaluation to make, with its arguments by name.
            args: the positional arguments as the pipeline passed them.
            kwargs: the keyword arguments as the pipeline passed them.
        """
        active = {image: parts for image, term in self.call.held.active.items() if (parts := _steering(term))}
        if not active or not (copies := self.rows_of_prompt(evaluation)):
            return evaluation.part(*args, **kwargs)
        try:
            if self._reach.joint:
                return self._joined(evaluation, args, kwargs, copies, active)
            return self._crossed(evaluation, copies, active)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.call.failed(error)
            return evaluation.part(*args, **kwargs)

    def rows_of_prompt(self, evaluation: Evaluation) -> list[Own]:
        """Return the row that holds each image's prompt, in one mapping per branch with prompts; empty if none has."""
        rows, images = third_branch.rows_given(evaluation), len(self._places.rows)
        for first, held in self._prompts:
            if rows == third_branch.rows_given(first) and self._same_words(evaluation, first, held):
                return [dict(enumerate(held[start : start + images])) for start in range(0, len(held), images)]
        # Some pipelines turn off guidance at some steps.
        alone = rows == images and all(third_branch.rows_given(first) != rows for first, _ in self._prompts)
        return [dict(enumerate(range(images)))] if alone else []

    def _same_words(self, evaluation: Evaluation, first: Evaluation, held: Sequence[int]) -> bool:
        slot = self._places.slots[0]
        now, then = (arguments.at(step.given, slot.path) for step in (evaluation, first))
        if slot.dim == 0 and slot.per == 1 and isinstance(now, torch.Tensor) and isinstance(then, torch.Tensor):
            return now.shape == then.shape and torch.equal(now[list(held)], then[list(held)])
        return not arguments.differing(now, then)

    def _of(self, evaluation: Evaluation) -> WatchedDenoiser:
        if evaluation.name not in self._watched:
            self._watched[evaluation.name] = WatchedDenoiser(evaluation.part)
        return self._watched[evaluation.name]

    def _crossed(self, evaluation: Evaluation, copies: Sequence[Own], active: Active) -> Any:
        try:
            return self._crossed_once(evaluation, copies, active)
        except Moved:
            self._moves = True  # the denoiser makes another context from the same words at every step
            return self._crossed_once(evaluation, copies, active)

    def _crossed_once(self, evaluation: Evaluation, copies: Sequence[Own], active: Active) -> Any:
        watched = self._of(evaluation)
        if self._moves:
            self._known = {}
        batch = third_branch.rows_given(evaluation)
        steered = [
            self._negatives(watched, evaluation, batch, own, [due[place] for place in alike])
            for due in _turns(active)
            for own in copies
            for alike in third_branch.alike(due)
        ]
        same = batch == third_branch.rows_given(self._prompts[0][0]) and len(self._prompts) == 1 and not self._moves
        watched.stage = Crossing(self._reach, steered, batch, self._reach.context if same else None)
        try:
            return replace(evaluation, part=watched.module).again(evaluation.given)
        finally:
            watched.stage = Plain()

    def _negatives(
        self, watched: WatchedDenoiser, evaluation: Evaluation, batch: int, own: Own, due: Sequence[tuple[int, Term]]
    ) -> Steered:
        """Return the rows to steer by negatives of the same shape, with the layers' arguments for these negatives.

        To find the arguments, the denoiser is evaluated up to the first layer that reads the prompt.
        """
        key = (evaluation.name, batch, tuple((own[image], term.text) for image, term in due))
        how = [term.attention for _, term in due if term.attention is not None]
        if key not in self._known:
            given = third_branch.inputs(evaluation, self._places, batch, own, due)
            watched.stage = Asking(self._reach)
            try:
                with self.call.evaluating():
                    replace(evaluation, part=watched.module).again(_unscaled(given))
            except StageReached as reached:
                self._known[key] = Steered([own[image] for image, _ in due], how, reached.given)
            finally:
                watched.stage = Plain()
        if key not in self._known:
            raise CannotSteer("no layer of the denoiser read the negative", hint="Report this.")
        return replace(self._known[key], how=how)

    def _joined(
        self,
        evaluation: Evaluation,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        copies: Sequence[Own],
        active: Active,
    ) -> Any:
        """Evaluate prompts and negatives in one batch; if only some images are steered, apart from the other images."""
        watched, batch = self._of(evaluation), third_branch.rows_given(evaluation)
        concerned = [own[image] for own in copies for image in active]
        alone = len(active) == len(self._places.rows)
        rows = list(range(batch)) if alone else concerned
        turns = [[(own[image], image, part) for own in copies for image, part in due] for due in _turns(active)]
        given = self._beside(evaluation, batch, rows, [pair for turn in turns for pair in turn])
        watched.stage = Joining(self._reach, _paired(turns, rows))
        try:
            output = replace(evaluation, part=watched.module).again(given)
        finally:
            watched.stage = Plain()
        first = arguments.first_of(output)[: len(rows)]
        if alone:
            return arguments.with_first(output, first)
        output = evaluation.part(*args, **kwargs)
        steered = arguments.first_of(output).clone()
        steered[concerned] = first.to(steered)
        return arguments.with_first(output, steered)

    def _beside(
        self, evaluation: Evaluation, batch: int, rows: Sequence[int], pairs: Sequence[tuple[int, int, Term]]
    ) -> Mapping[str, Any]:
        """Return the denoiser's inputs for some rows, followed by copies of the steered rows with their negatives."""
        again = Rows([*rows, *(row for row, _, _ in pairs)], batch, latents=next(iter(evaluation.given)))
        given = {name: again.of(value, (name,)) for name, value in evaluation.given.items()}
        conditionings = [term.conditioning.of(image) for _, image, term in pairs]
        for slot in _sequences(self._places, evaluation):
            value, negatives = (
                arguments.at(given, slot.path),
                [conditioning[slot.path] for conditioning in conditionings],
            )
            given = arguments.replaced(given, slot.path, _with_rows(value, negatives, len(rows)))
        return given


def _steering(term: Term) -> tuple[Term, ...]:
    """Return the negatives that steer an image in attention space, one per category; empty if none do."""
    return term.parts if term.attention is not None and term.attention.acts else ()


def _turns(active: Active) -> list[list[tuple[int, Term]]]:
    """Group the negatives by turn: the first negative of every image, then the second ones, and so on."""
    most = max(len(parts) for parts in active.values())
    return [[(image, parts[k]) for image, parts in active.items() if k < len(parts)] for k in range(most)]


def _paired(turns: Sequence[Sequence[tuple[int, int, Term]]], rows: Sequence[int]) -> list[Pairs]:
    """Pair the prompts' batch rows with the negatives' rows, turn by turn; the negatives' rows follow all prompts'."""
    paired, start = list[Pairs](), len(rows)
    for turn in turns:
        how = [part.attention for _, _, part in turn if part.attention is not None]
        paired.append(Pairs([rows.index(row) for row, _, _ in turn], range(start, start + len(turn)), how))
        start += len(turn)
    return paired


def _unscaled(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return inputs without the LoRA scale: some denoisers reset it only when their evaluation runs to its end."""
    return {
        name: {key: item for key, item in value.items() if key != "scale"} if isinstance(value, dict) else value
        for name, value in given.items()
    }


def check_beside(places: Places, prompt: Evaluation, other: Evaluation) -> None:
    """Check that negatives can be evaluated in one batch with the prompt: they have the same length, or a mask.

    Raises:
        CannotSteer: the arguments of a negative have another form than those of the prompt.
    """
    slots = _sequences(places, prompt)
    masked = any("mask" in str(slot.path[-1]) for slot in slots)
    for slot in slots:
        one, two = (arguments.at(evaluation.given, slot.path) for evaluation in (prompt, other))
        fits = isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor) and slot.dim == 0 and slot.per == 1
        if not fits or (one.shape[1:] != two.shape[1:] and not masked):
            raise CannotSteer(
                "guidance mode 'attention' cannot evaluate a negative beside its prompt, as they are of different form",
                hint="Use guidance mode 'auto' or 'separate', which steer by its outputs.",
            )


def _sequences(places: Places, evaluation: Evaluation) -> list[Slot]:
    """Return the places of the arguments that hold a prompt's tokens.

    An argument that holds one pooled vector per prompt is left out: a negative's row is evaluated with the vector of
    the prompt, because the denoiser reads it as a description of the whole picture.
    """

    def pooled(slot: Slot) -> bool:
        value = arguments.at(evaluation.given, slot.path)
        flat = isinstance(value, torch.Tensor) and value.ndim <= 2 and value.is_floating_point()  # noqa: PLR2004
        return flat and "mask" not in str(slot.path[-1])

    return [slot for slot in places.slots if not pooled(slot)]


def _with_rows(value: Tensor, negatives: Sequence[Tensor], rows: int) -> Tensor:
    """Return the first rows of an argument, followed by the negatives' rows, all padded to the same length."""
    tokens = [value[:rows], *negatives]
    if value.ndim == 1:
        return torch.cat(tokens)
    longest = max(part.shape[1] for part in tokens)
    pads = [(0, 0) * (value.ndim - 2) + (0, longest - part.shape[1]) for part in tokens]
    return torch.cat([F.pad(part, pad) if any(pad) else part for part, pad in zip(tokens, pads, strict=True)])
