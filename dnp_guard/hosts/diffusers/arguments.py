"""The arguments of a denoiser: rows of them, and one of them replaced, however deep in dictionaries they lie."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

_OF_NO_IMAGE = frozenset({"freqs_cis", "image_rotary_emb", "img_ids", "rotary_emb", "txt_ids"})
"""Positions, which may happen to be as many as the images."""


def named(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The arguments by name, where some of these were given by place; otherwise those by place under ``args``."""
    if all(name.partition(".")[0] in kwargs for name in names):
        return {**kwargs, "args": args}
    inner = getattr(module, "_orig_mod", module)  # a compiled module takes anything
    return {**inspect.signature(inner.forward).bind(*args, **kwargs).arguments, "args": ()}


def rows_of(value: Any, rows: Tensor, batch: int, listed: Iterable[str] = ()) -> Any:
    """The given rows of every tensor of that batch size inside a value.

    Args:
        value: a tensor, or a dictionary or list of such values; anything else stays as it is.
        rows: indices.
        batch: rows of the tensors concerned.
        listed: keys of a dictionary whose values are lists of one element a row.
    """
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {
            key: [each[row] for row in rows.tolist()]
            if key in listed
            else each
            if key in _OF_NO_IMAGE
            else rows_of(each, rows, batch)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(rows_of(each, rows, batch) for each in value)
    return value


def appended(value: Any, more: Any, batch: int) -> Any:
    """Every tensor of that batch size inside a value, followed by the rows of its counterpart in ``more``."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, more]) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: each if key in _OF_NO_IMAGE else appended(each, more[key], batch) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(appended(each, other, batch) for each, other in zip(value, more, strict=True))
    return value


def at(arguments: Mapping[str, Any], name: str) -> Any:
    """One argument; a dot in its name leads into a dictionary."""
    value: Any = arguments
    for part in name.split("."):
        value = value[part]
    return value


def replaced(arguments: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """The arguments with one of them, perhaps inside a dictionary, replaced."""
    first, _, rest = name.partition(".")
    return {**arguments, first: replaced(arguments[first], rest, value) if rest else value}


def first_of(output: Any) -> Tensor:
    """A denoiser's first output, one row an image; some give a list of images."""
    first = output[0]
    return torch.stack(first) if isinstance(first, list) else first


def with_first(output: Any, first: Tensor) -> Any:
    """A denoiser's output with its first tensor, or list of tensors, replaced."""
    value = list(first.unbind()) if isinstance(output[0], list) else first
    if isinstance(output, tuple):
        return (value, *output[1:])
    output[next(iter(output.keys()))] = value
    return output
