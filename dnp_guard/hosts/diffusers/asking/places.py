"""Find where words are in a denoiser's arguments, by comparing two first steps that differ in their words."""

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
    """An argument that depends on the prompt.

    Attributes:
        path: where it is.
        dim: dimension of its rows; None if it is the same for all rows.
        per: number of its rows per output row.
        listed: whether it is a list with one element per row.
    """

    path: Path
    dim: int | None = None
    per: int = 1
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """Where words are in the evaluations of a step.

    Attributes:
        slots: arguments that hold them.
        place: number of the evaluation that a negative's evaluation is modelled on.
        rows: the rows in it, one per image, that it is modelled on: unconditional ones if there are any.
        batch: number of rows of its output.
        of_step: number of evaluations per step.
        negative: whether the words were put in as a negative prompt, and so have an unconditional slot.
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
        """How many branches one evaluation holds."""
        return self.batch // len(self.rows)

    @property
    def copies(self) -> int:
        """How often a row is evaluated; perturbed attention needs the rows of every branch."""
        guided = self.branches == _BRANCHES and (self.negative or self.rows[0] == 0) and not self.perturbed
        return 1 if self.branches == 1 or guided else self.branches

    perturbed: bool = False
    """Whether the prompt is in two branches."""


@dataclass(frozen=True, slots=True)
class Captured:
    """Evaluation that the denoiser gets for some words, with the words' places in it: a negative's conditioning."""

    evaluation: Evaluation
    places: Places

    def of(self, image: int) -> dict[Path, Any]:
        """Return the arguments of one image that hold the words."""
        row = self.places.rows[image]
        return {
            slot.path: _of_row(slot, arguments.at(self.evaluation.given, slot.path), row) for slot in self.places.slots
        }


def compared(own: FirstStep, other: FirstStep, *, negative: bool) -> Places | None:
    """Find where other words are; None if they change nothing, or how the denoiser is evaluated.

    Args:
        own: the first step with the user's own words.
        other: the first step with other words.
        negative: whether these replace the negative prompt, rather than the prompt.

    Raises:
        CannotSteer: they change something else too, or it cannot be determined whose rows they are.
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
    """Find the prompt: return the numbers of the evaluations that hold it, with the indices of their rows that hold it.

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
    """Return whether two first steps evaluate the same parts in the same order with as many rows."""
    return [_form(evaluation) for evaluation in own.evaluations] == [
        _form(evaluation) for evaluation in other.evaluations
    ]


def named(path: Path) -> str:
    """Format a path for a message."""
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
    """Return the indices along a dimension at which two tensors differ, up to the length of the shorter."""
    sizes = [slice(min(a, b)) for a, b in zip(before.shape, after.shape, strict=True)]
    moved = (before[tuple(sizes)] != after[tuple(sizes)]).movedim(dim, 0)
    return [index for index, values in enumerate(moved) if values.any()]


def _rows(slots: Sequence[Slot], one: Evaluation, other: Evaluation, batch: int) -> list[int]:
    """Return the rows of the output that words changed."""
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
    """Check that words change neither the latents, every denoiser's first argument, nor the time.

    Raises:
        CannotSteer: they do.
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
