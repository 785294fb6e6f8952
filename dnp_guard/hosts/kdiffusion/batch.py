"""Select images from a batch whose conditioning is a tensor, a list with one entry per image, or a dict of these."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def rows(value: Any, index: Sequence[int], images: int) -> Any:
    """Copy a value with the entries of some images only; parts of it that have no entry per image stay as they are.

    Args:
        value: a tensor [B, ...], a list or tuple of B entries, or a dict or list of these. A list of B entries is
            always taken as one entry per image.
        index: indices of the images.
        images: B, the size of the batch.
    """
    if isinstance(value, torch.Tensor):
        return value[list(index)] if value.ndim and value.shape[0] == images else value
    if isinstance(value, dict):
        return {key: rows(item, index, images) for key, item in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == images:
            return type(value)(value[at] for at in index)
        return type(value)(rows(item, index, images) for item in value)
    return value


def replaced(value: Any, index: Sequence[int], entries: Any, images: int) -> Any:
    """Copy a value and replace the entries of some images.

    Args:
        value: value with one entry per image, as :func:`rows` takes it.
        index: indices of the images.
        entries: the new entries, one per index, in the same form as ``value``.
        images: B, the size of the batch.

    Raises:
        ValueError: ``entries`` differs from ``value`` in form, or an entry in shape.
    """
    if isinstance(value, torch.Tensor) and isinstance(entries, torch.Tensor):
        if not value.ndim or value.shape[0] != images:
            return value
        if value.shape[1:] != entries.shape[1:]:
            raise ValueError(f"a negative of shape {list(entries.shape)} beside {list(value.shape)}")
        copied = value.clone()
        copied[list(index)] = entries.to(copied)
        return copied
    if isinstance(value, dict) and isinstance(entries, dict):
        return {key: replaced(item, index, entries.get(key, item), images) for key, item in value.items()}
    if isinstance(value, list | tuple) and isinstance(entries, list | tuple):
        if len(value) == images:
            mine = dict(zip(index, entries, strict=True))
            return type(value)(mine.get(at, item) for at, item in enumerate(value))
        pairs = zip(value, entries, strict=True)
        return type(value)(replaced(item, index, entry, images) for item, entry in pairs)
    if value is entries or not isinstance(value, torch.Tensor | dict | list | tuple):
        return value
    raise ValueError(f"a negative of type {type(entries).__name__} beside {type(value).__name__}")


def alike(values: Sequence[Any]) -> list[list[int]]:
    """Group the positions of values that :func:`joined` can join, because they have the same types and shapes."""
    groups: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(_form(value), []).append(place)
    return list(groups.values())


def _form(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, dict):
        return tuple((key, _form(item)) for key, item in value.items())
    return (type(value), *map(_form, value)) if isinstance(value, list | tuple) else type(value)


def joined(values: Sequence[Any]) -> Any:
    """Join values into one value of the same form: concatenate tensors and lists, also those inside dicts.

    Raises:
        ValueError: the values differ in type.
        RuntimeError: tensors have different shapes.
    """
    first = values[0]
    if any(type(value) is not type(first) for value in values):
        raise ValueError(f"negatives of different types: {sorted({type(value).__name__ for value in values})}")
    if isinstance(first, torch.Tensor):
        return torch.cat(list(values)) if first.ndim else first
    if isinstance(first, dict):
        return {key: joined([value[key] for value in values]) for key in first}
    return reduce(add, values) if isinstance(first, list | tuple) else first
