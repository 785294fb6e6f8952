"""The arguments of a denoiser: rows of them, and one of them replaced, however deep in dictionaries they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


def rows_of(value: Any, rows: Tensor, batch: int) -> Any:
    """The given rows of every tensor of that batch size inside a value."""
    if isinstance(value, torch.Tensor):
        return value[rows] if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: rows_of(each, rows, batch) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(rows_of(each, rows, batch) for each in value)
    return value


def appended(value: Any, more: Any, batch: int) -> Any:
    """Every tensor of that batch size inside a value, followed by the rows of its counterpart in ``more``."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, more]) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: appended(each, more[key], batch) for key, each in value.items()}
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


def with_first(output: Any, first: Tensor) -> Any:
    """A denoiser's output with its first tensor replaced."""
    if isinstance(output, tuple):
        return (first, *output[1:])
    output[next(iter(output.keys()))] = first
    return output
