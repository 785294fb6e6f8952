"""Inputs of a third branch: a negative in place of the empty prompt, only for the steered images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.arguments import Rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dnp_guard.hosts.diffusers.asking.arguments import Evaluation
    from dnp_guard.hosts.diffusers.asking.places import Places, Slot
    from dnp_guard.steering.branch import Term

    Own = Mapping[int, int] | Sequence[int]
    """The row of each image."""
    Due = Sequence[tuple[int, Term]]
    """Images and their terms."""


def inputs(evaluation: Evaluation, places: Places, batch: int, own: Own, due: Due) -> Mapping[str, Any]:
    """Return the inputs for evaluating some images with their negatives.

    Args:
        evaluation: the pipeline's own evaluation.
        places: where the words are.
        batch: number of rows of the pipeline's own evaluation.
        own: rows, by image, that the negatives' rows are modelled on.
        due: images and terms; their conditionings have one shape.
    """
    per = frozenset(slot.per for slot in places.slots if slot.per > 1)
    rows = Rows([own[image] for image, _ in due], batch, per, next(iter(evaluation.given)))
    given = {name: rows.of(value, (name,)) for name, value in evaluation.given.items()}
    conditionings = [term.conditioning.of(image) for image, term in due]
    for slot in places.slots:
        given = arguments.replaced(
            given, slot.path, _together(slot, [conditioning[slot.path] for conditioning in conditionings])
        )
    return given


def alike(due: Due) -> Iterator[list[int]]:
    """Yield the positions of terms that can be evaluated together, because their conditionings have one shape."""
    groups: dict[Any, list[int]] = {}
    for place, (image, term) in enumerate(due):
        shapes = tuple((path, _shape(value)) for path, value in term.conditioning.of(image).items())
        groups.setdefault(shapes, []).append(place)
    yield from groups.values()


def joins(places: Places) -> bool:
    """Return whether the negatives' rows can be appended to the pipeline's own evaluation."""
    plain = all(slot.dim == 0 and slot.per == 1 for slot in places.slots)
    return places.of_step == 1 and places.copies == 1 and plain


def joined(evaluation: Evaluation, places: Places, batch: int, own: Sequence[int], due: Due) -> Any:
    """Return the inputs with the negatives' rows behind the pipeline's own; None if their lengths differ."""
    if len(list(alike(due))) > 1:
        return None
    more = inputs(evaluation, places, batch, own, due)
    for slot in places.slots:
        if _form(arguments.at(evaluation.given, slot.path)) != _form(arguments.at(more, slot.path)):
            return None
    return arguments.appended(evaluation.given, more, batch)


def overwritten(evaluation: Evaluation, places: Places, due: Due) -> Mapping[str, Any] | None:
    """Return the inputs with the negatives in their unconditional rows; None if their lengths differ.

    A mask can make the lengths differ too: some denoisers lay out the whole batch by its longest prompt.
    """
    given = evaluation.given
    for slot in places.slots:
        value = arguments.at(given, slot.path)
        if slot.dim is None or not isinstance(value, torch.Tensor):
            return None
        value = value.clone()
        for image, term in due:
            negative = term.conditioning.of(image)[slot.path]
            place = value.narrow(slot.dim, places.rows[image] * slot.per, slot.per)
            if not isinstance(negative, torch.Tensor) or negative.shape != place.shape:
                return None
            if not negative.is_floating_point() and not torch.equal(negative.to(place), place):
                return None
            place.copy_(negative)
        given = arguments.replaced(given, slot.path, value)
    return given


def rows_given(evaluation: Evaluation) -> int:
    """Return the number of rows of an evaluation: the number of latents, every denoiser's first argument."""
    return len(next(iter(evaluation.given.values())))


def _together(slot: Slot, values: Sequence[Any]) -> Any:
    """Join one argument of several negatives."""
    if slot.listed:
        return [row for value in values for row in value]
    if slot.dim is None or not isinstance(values[0], torch.Tensor):
        return values[0]
    return torch.cat(list(values), dim=slot.dim)


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else type(value)


def _form(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)
