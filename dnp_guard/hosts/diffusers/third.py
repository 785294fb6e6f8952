"""The inputs of a third branch: a negative in the place of the empty prompt, for the images concerned only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.hosts.diffusers import arguments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.families import Family
    from dnp_guard.steering.branch import Term


def inputs(given: dict[str, Any], rows: Sequence[int], terms: Sequence[Term], batch: int, family: Family) -> Any:
    """The inputs of an evaluation, some rows of them, under negatives.

    Args:
        given: the host's own inputs, by name.
        rows: which of them.
        terms: one a row; their conditioning is of one shape.
        batch: rows of the host's own evaluation.
        family: names what is not one tensor with one row an image.
    """
    taken = arguments.rows_of(given, torch.tensor(rows), batch, family.listed)
    for name in terms[0].conditioning:
        negatives = [term.conditioning[name] for term in terms]
        taken = arguments.replaced(taken, name, _value(arguments.at(given, name), name, negatives, rows, batch, family))
    return taken


def overwritten(
    given: dict[str, Any], rows: Sequence[int], terms: Sequence[Term], batch: int, family: Family
) -> dict[str, Any]:
    """The inputs of an evaluation with some rows of them under negatives, and the others as they were."""
    for name in terms[0].conditioning:
        slot = arguments.at(given, name)
        negatives = [term.conditioning[name] for term in terms]
        value = slot.clone()
        value[_places(slot, name, rows, batch, family)] = _value(slot, name, negatives, rows, batch, family)
        given = arguments.replaced(given, name, value)
    return given


def alike(terms: Sequence[tuple[int, Term]]) -> Iterator[list[int]]:
    """Places of the terms that can be evaluated together: their conditioning is of one shape."""
    groups: dict[Any, list[int]] = {}
    for place, (_, term) in enumerate(terms):
        shapes = tuple((name, None if value is None else value.shape) for name, value in term.conditioning.items())
        groups.setdefault(shapes, []).append(place)
    yield from groups.values()


def _value(slot: Any, name: str, negatives: Sequence[Tensor], rows: Sequence[int], batch: int, family: Family) -> Any:
    """What takes the place of some rows of an argument."""
    if negatives[0] is None:
        return None
    if name in family.listed:
        return [negative.to(slot[row]) for negative, row in zip(negatives, rows, strict=True)]
    value = torch.stack(list(negatives))
    if slot is None:  # nothing was masked
        return value
    if name in family.repeated:
        value = value.repeat_interleave(slot.shape[0] // batch, dim=0)
    if name in family.leading:
        whole = slot[list(rows)].clone()
        whole[:, : value.shape[1]] = value.to(whole)
        return whole
    return value.to(slot)


def _places(slot: Tensor, name: str, rows: Sequence[int], batch: int, family: Family) -> list[int]:
    each = slot.shape[0] // batch if name in family.repeated else 1
    return [row * each + place for row in rows for place in range(each)]
