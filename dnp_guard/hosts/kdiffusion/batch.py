"""Pick images out of a batch, whatever form its conditioning has: a tensor, a list with one entry an image, a dict."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


def rows(value: Any, index: Sequence[int], images: int) -> Any:
    """The entries of some images in everything inside a value that has one an image; the rest as it is.

    Args:
        value: a tensor [B, ...], a list or tuple of B entries, or a dict or list of such. A list of B entries has one
            an image, whatever they are.
        index: the images wanted.
        images: B, the size of the batch.
    """
    if isinstance(value, torch.Tensor):
        return value[list(index)] if value.ndim and value.shape[0] == images else value
    if isinstance(value, dict):
        return {key: rows(each, index, images) for key, each in value.items()}
    if isinstance(value, list | tuple):
        if len(value) == images:
            return type(value)(value[at] for at in index)
        return type(value)(rows(each, index, images) for each in value)
    return value


def replaced(value: Any, index: Sequence[int], entries: Any, images: int) -> Any:
    """A copy of a value in which some images have other entries; a form of its own each, as in :func:`rows`.

    Raises:
        ValueError: the two have not the same form, or an entry has another shape.
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
        return {key: replaced(each, index, entries.get(key, each), images) for key, each in value.items()}
    if isinstance(value, list | tuple) and isinstance(entries, list | tuple):
        if len(value) == images:
            mine = dict(zip(index, entries, strict=True))
            return type(value)(mine.get(at, each) for at, each in enumerate(value))
        pairs = zip(value, entries, strict=True)
        return type(value)(replaced(each, index, entry, images) for each, entry in pairs)
    if value is entries or not isinstance(value, torch.Tensor | dict | list | tuple):
        return value
    raise ValueError(f"a negative of type {type(entries).__name__} beside {type(value).__name__}")


def alike(values: Sequence[Any]) -> list[list[int]]:
    """Places of the values that :func:`joined` takes together: those of one form."""
    groups: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        groups.setdefault(_form(value), []).append(place)
    return list(groups.values())


def _form(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.shape
    if isinstance(value, dict):
        return tuple((key, _form(each)) for key, each in value.items())
    return (type(value), *map(_form, value)) if isinstance(value, list | tuple) else type(value)


def joined(values: Sequence[Any]) -> Any:
    """Values of one form, one after the other, as one of that form.

    Raises:
        ValueError: they have not the same form.
        RuntimeError: tensors of different shapes.
    """
    first = values[0]
    if any(type(each) is not type(first) for each in values):
        raise ValueError(f"negatives of different types: {sorted({type(each).__name__ for each in values})}")
    if isinstance(first, torch.Tensor):
        return torch.cat(list(values)) if first.ndim else first
    if isinstance(first, dict):
        return {key: joined([each[key] for each in values]) for key in first}
    return reduce(add, values) if isinstance(first, list | tuple) else first
