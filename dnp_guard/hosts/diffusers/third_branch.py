"""Build the denoiser's inputs for a third guidance branch, which has the negatives of the steered images as prompts."""

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
    """Batch row of each image, by the image's index."""
    Due = Sequence[tuple[int, Term]]
    """Indices of images, with the negatives to evaluate for them."""


def inputs(evaluation: Evaluation, places: Places, batch: int, own: Own, due: Due) -> Mapping[str, Any]:
    """Return the denoiser's inputs to evaluate some images with their negatives.

    Args:
        evaluation: the pipeline's own evaluation.
        places: where a negative's words go in the inputs.
        batch: number of rows of the pipeline's own evaluation.
        own: row of each image in that evaluation; the row of its negative prompt is a copy with other words.
        due: images and their negatives, whose conditionings have the same shape.
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
    """Yield groups of positions in ``due`` whose negatives can be evaluated together, because they have one shape."""
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
    """Return the denoiser's inputs with the negatives' rows after the pipeline's own; None if prompt lengths differ."""
    if len(list(alike(due))) > 1:
        return None
    more = inputs(evaluation, places, batch, own, due)
    for slot in places.slots:
        if _form(arguments.at(evaluation.given, slot.path)) != _form(arguments.at(more, slot.path)):
            return None
    return arguments.appended(evaluation.given, more, batch)


def overwritten(evaluation: Evaluation, places: Places, due: Due) -> Mapping[str, Any] | None:
    """Return the denoiser's inputs with the negatives in the unconditional rows; None if prompt lengths differ.

    Different masks mean different lengths, too: some denoisers lay out the whole batch by its longest prompt.
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
    """Join the values of one argument for several negatives into one batch."""
    if slot.listed:
        return [row for value in values for row in value]
    if slot.dim is None or not isinstance(values[0], torch.Tensor):
        return values[0]
    return torch.cat(list(values), dim=slot.dim)


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else type(value)


def _form(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)
