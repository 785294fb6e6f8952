"""Find which arguments of a denoiser depend on the prompt, by comparing the first steps of two different prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.recording import is_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation, Path
    from dnp_guard.hosts.diffusers.asking.capture import FirstStep

_BRANCHES = 2


@dataclass(frozen=True, slots=True)
class Slot:
    """An argument of the denoiser, or a value inside one, that depends on the prompt.

    Attributes:
        path: name of the argument, followed by the keys and indices into it.
        dim: dimension that holds the batch rows; None if the value is the same for all rows.
        per: number of the value's rows per output row.
        listed: whether the value is a list with one element per row.
    """

    path: Path
    dim: int | None = None
    per: int = 1
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where the denoiser's evaluations in a step hold the prompt, and which rows a negative's evaluation copies.

    Attributes:
        slots: arguments that depend on the prompt.
        place: number, in the step, of the evaluation whose arguments a negative's evaluation copies.
        rows: batch rows of that evaluation to copy, one per image: the unconditional ones if there are any.
        batch: number of rows of the evaluation's output.
        of_step: number of evaluations per step.
        negative: whether words were put in as a negative prompt, so that the call has an unconditional branch.
        prompt: number of the evaluation in which words in place of the prompt are found.
    """

    slots: tuple[Slot, ...]
    place: int
    rows: tuple[int, ...]
    batch: int
    of_step: int
    negative: bool
    prompt: int

    @property
    def branches(self) -> int:
        """The number of guidance branches in one evaluation."""
        return self.batch // len(self.rows)

    @property
    def copies(self) -> int:
        """The number of copies of a negative's row to evaluate; perturbed attention needs one per branch."""
        guided = self.branches == _BRANCHES and (self.negative or self.rows[0] == 0) and not self.perturbed
        return 1 if self.branches == 1 or guided else self.branches

    perturbed: bool = False
    """Whether two branches hold the prompt, as in perturbed-attention guidance."""


@dataclass(frozen=True, slots=True)
class Captured:
    """A negative prompt's conditioning: the denoiser's arguments under it, and which of these depend on a prompt."""

    evaluation: Evaluation
    places: Places

    def of(self, image: int) -> dict[Path, Any]:
        """Return the arguments that depend on the words, by path, with only the row of one image."""
        row = self.places.rows[image]
        return {
            slot.path: _of_row(slot, arguments.at(self.evaluation.given, slot.path), row) for slot in self.places.slots
        }


def compared(own: FirstStep, other: FirstStep, *, negative: bool) -> Places | None:
    """Find the arguments that other words change; None if they change none, or change which evaluations are made.

    Args:
        own: the first step with the user's own words.
        other: the first step with other words.
        negative: whether the other words replace the negative prompt, rather than the prompt.

    Raises:
        CannotSteer: the words change the latents or the timestep too, or it is not clear which rows belong to an image.
    """
    if not alike(own, other):
        return None
    images = own.sample.shape[0]
    differing = [
        (place, _slots(one, two, images))
        for place, (one, two) in enumerate(zip(own.evaluations, other.evaluations, strict=True))
    ]
    differing = [(place, slots) for place, slots in differing if slots]
    if not differing:
        return None
    for place, slots in differing:
        _check_prompts_alone(own.evaluations[place], slots)
    of_step = len(own.evaluations)
    held, slots = differing[0]
    batch = len(arguments.first_of(own.evaluations[held].output))
    holds = _rows(slots, own.evaluations[held], other.evaluations[held], batch)
    if batch % images or len(holds) % images:
        raise CannotSteer(
            f"its denoiser evaluates {batch} rows for {images} images", hint="Generate one image per call."
        )
    perturbed = not negative and len(holds) > images
    place, rows = held, holds[:images]
    if not negative:
        without = [row for row in range(batch) if row not in holds]
        if len(without) >= images:
            rows = without[:images]
        elif len(differing) < of_step:
            places = {index for index, _ in differing}
            place = next(index for index in range(of_step) if index not in places)
            if _form(own.evaluations[place]) != _form(own.evaluations[held]):
                place = held
    return Places(tuple(slots), place, tuple(rows), batch, of_step, negative, held, perturbed)


def prompts(own: FirstStep, other: FirstStep) -> dict[int, tuple[int, ...]]:
    """Return the batch rows that hold the prompt, by the number of their evaluation in the step.

    Args:
        own: the first step with the user's own words.
        other: the first step with other words in place of the prompt.
    """
    images, held = own.sample.shape[0], {}
    for place, (one, two) in enumerate(zip(own.evaluations, other.evaluations, strict=True)):
        if slots := _slots(one, two, images):
            held[place] = tuple(_rows(slots, one, two, len(arguments.first_of(one.output))))
    return held


def alike(own: FirstStep, other: FirstStep) -> bool:
    """Return whether two first steps evaluate the same parts in the same order, with the same numbers of rows."""
    return [_form(evaluation) for evaluation in own.evaluations] == [
        _form(evaluation) for evaluation in other.evaluations
    ]


def named(path: Path) -> str:
    """Format the path of an argument for an error message."""
    return "`" + ".".join(map(str, path)) + "`"


def _slots(one: Evaluation, other: Evaluation, images: int) -> list[Slot]:
    batch = len(arguments.first_of(one.output))
    slots: dict[Path, Slot] = {}
    for path in arguments.differing(one.given, other.given):
        parents = (path[:length] for length in range(1, len(path)))
        of_list = next(
            (parent for parent in parents if arguments.is_list_of_rows(arguments.at(other.given, parent), batch)), None
        )
        where = of_list or path
        slots[where] = Slot(where, listed=True) if of_list else _slot(path, one, other, batch, images)
    return list(slots.values())


def _slot(path: Path, one: Evaluation, other: Evaluation, batch: int, images: int) -> Slot:
    before, after = arguments.at(one.given, path), arguments.at(other.given, path)
    value = after if isinstance(after, torch.Tensor) else before
    if not isinstance(value, torch.Tensor):
        return Slot(path)
    fits = [dim for dim in range(min(2, value.ndim)) if value.shape[dim] and value.shape[dim] % batch == 0]
    fits.sort(key=lambda dim: value.shape[dim] != batch)
    if len(fits) > 1 and batch > images and isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
        fits.sort(key=lambda dim: len(_changed(before, after, dim)) == value.shape[dim])
    if not fits:
        return Slot(path)
    return Slot(path, fits[0], value.shape[fits[0]] // batch)


def _changed(before: Tensor, after: Tensor, dim: int) -> list[int]:
    """Return the indices along a dimension at which two tensors differ, as far as the smaller tensor reaches."""
    sizes = [slice(min(a, b)) for a, b in zip(before.shape, after.shape, strict=True)]
    moved = (before[tuple(sizes)] != after[tuple(sizes)]).movedim(dim, 0)
    return [index for index, values in enumerate(moved) if values.any()]


def _rows(slots: Sequence[Slot], one: Evaluation, other: Evaluation, batch: int) -> list[int]:
    """Return the batch rows whose arguments differ between two evaluations; all rows if none can be singled out."""
    rows: set[int] = set()
    for slot in slots:
        before, after = arguments.at(one.given, slot.path), arguments.at(other.given, slot.path)
        if slot.listed:
            rows |= {row for row in range(batch) if arguments.differing(before[row], after[row])}
        elif slot.dim is not None and isinstance(before, torch.Tensor) and isinstance(after, torch.Tensor):
            changed = _changed(before, after, slot.dim) if before.ndim == after.ndim else []
            rows |= {index // slot.per for index in changed}
    return sorted(rows) or list(range(batch))


def _of_row(slot: Slot, value: Any, row: int) -> Any:
    if slot.listed:
        return [value[row]]
    if slot.dim is None or not isinstance(value, torch.Tensor):
        return value
    return value.narrow(slot.dim, row * slot.per, slot.per)


def _check_prompts_alone(evaluation: Evaluation, slots: Sequence[Slot]) -> None:
    """Check that other words change neither the latents (every denoiser's first argument) nor the timestep.

    Raises:
        CannotSteer: the words change one of them.
    """
    latents = next(iter(evaluation.given))
    for slot in slots:
        if slot.path[0] == latents or is_time(str(slot.path[0])):
            raise CannotSteer(
                f"other words change what its {evaluation.name} denoises, {named(slot.path)}",
                hint="Pass a generator, so that the same noise can be drawn again.",
            )


def _form(evaluation: Evaluation) -> tuple[str, int]:
    return evaluation.name, len(arguments.first_of(evaluation.output))
