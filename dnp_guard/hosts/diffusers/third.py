"""The inputs of a third branch: a negative in the place of the empty prompt, for the images concerned only."""

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
    """The inputs of an evaluation of some images under negatives.

    Args:
        evaluation: the pipeline's own.
        places: where the words live.
        batch: rows of the pipeline's own evaluation.
        own: the rows, by image, that the negatives' are modelled on.
        due: images and terms; their conditioning is of one shape.
    """
    per = frozenset(slot.per for slot in places.slots if slot.per > 1)
    rows = Rows([own[image] for image, _ in due], batch, per, next(iter(evaluation.given)))
    given = {name: rows.of(value, (name,)) for name, value in evaluation.given.items()}
    conditionings = [term.conditioning.of(image) for image, term in due]
    for slot in places.slots:
        given = arguments.replaced(given, slot.path, _together(slot, [each[slot.path] for each in conditionings]))
    return given


def alike(due: Due) -> Iterator[list[int]]:
    """Places of the terms that can be evaluated together: their conditioning is of one shape."""
    groups: dict[Any, list[int]] = {}
    for place, (image, term) in enumerate(due):
        shapes = tuple((path, _shape(value)) for path, value in term.conditioning.of(image).items())
        groups.setdefault(shapes, []).append(place)
    yield from groups.values()


def joins(places: Places) -> bool:
    """Whether the rows of negatives can be appended to the pipeline's own evaluation."""
    plain = all(slot.dim == 0 and slot.per == 1 for slot in places.slots)
    return places.of_step == 1 and places.copies == 1 and plain


def joined(evaluation: Evaluation, places: Places, batch: int, own: Sequence[int], due: Due) -> Any:
    """The inputs of an evaluation with the rows of negatives behind its own; None where they are of another length."""
    if len(list(alike(due))) > 1:
        return None
    more = inputs(evaluation, places, batch, own, due)
    for slot in places.slots:
        if _form(arguments.at(evaluation.given, slot.path)) != _form(arguments.at(more, slot.path)):
            return None
    return arguments.appended(evaluation.given, more, batch)


def overwritten(evaluation: Evaluation, places: Places, due: Due) -> Mapping[str, Any] | None:
    """The inputs with the negatives in their unconditional rows; None where they are of another length.

    That is so too where a mask says it: some denoisers lay out the whole batch by the longest of its prompts.
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
    """Rows of an evaluation: how many latents it is given, which every denoiser takes first."""
    return len(next(iter(evaluation.given.values())))


def _together(slot: Slot, values: Sequence[Any]) -> Any:
    """One argument of several negatives."""
    if slot.listed:
        return [row for value in values for row in value]
    if slot.dim is None or not isinstance(values[0], torch.Tensor):
        return values[0]
    return torch.cat(list(values), dim=slot.dim)


def _shape(value: Any) -> Any:
    return value.shape if isinstance(value, torch.Tensor) else type(value)


def _form(value: Any) -> Any:
    return value.shape[1:] if isinstance(value, torch.Tensor) else type(value)
