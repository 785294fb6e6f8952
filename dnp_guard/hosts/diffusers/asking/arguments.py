"""The arguments of a denoiser: walk through them, compare them, and take the rows of some images."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

Path = tuple[Any, ...]
"""Name of an argument, followed by the keys and indices into it."""

_OF_NO_IMAGE = frozenset(
    {"freqs_cis", "image_rotary_emb", "img_ids", "rotary_emb", "text_rope_pos", "txt_ids", "visual_rope_pos"}
)
"""Arguments that hold positions, whose number may happen to equal the number of images."""

_FEATURES = 4
"""Least number of dimensions of a tensor that holds features of frames, with several rows per output row."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation (forward pass) of a denoiser by its pipeline.

    Attributes:
        name: name of the denoiser in the pipeline.
        part: the denoiser.
        given: arguments of the denoiser, by name.
        by_place: names of the arguments that were passed by position.
        output: output of the denoiser; None before it is evaluated.
    """

    name: str
    part: Any
    given: Mapping[str, Any]
    by_place: tuple[str, ...] = ()
    output: Any = None

    def again(self, given: Mapping[str, Any]) -> Any:
        """Evaluate the denoiser with other arguments, by position or by name as the pipeline passed its own."""
        more = dict(given)
        args = [more.pop(name) for name in self.by_place]
        return self.part(*args, **more)


def evaluation(
    name: str, part: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any = None
) -> Evaluation:
    """Describe an evaluation, with all its arguments by name; copy lists, because some denoisers empty them."""
    names: tuple[str, ...] = ()
    if args:
        inner = getattr(part, "_orig_mod", part)  # a compiled module accepts any arguments
        parameters = inspect.signature(getattr(inner, "forward", inner)).parameters
        names = tuple(parameters)[: len(args)]
    given = {**dict(zip(names, args, strict=True)), **kwargs}
    return Evaluation(name, part, {key: kept(value) for key, value in given.items()}, names, output)


def kept(value: Any) -> Any:
    """Return a value with its lists copied, because pipelines and denoisers empty or change lists they are given."""
    if type(value) is dict:
        return {key: kept(item) for key, item in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(kept(item) for item in value)
    if isinstance(value, OrderedDict) and any(isinstance(item, list) for item in value.values()):  # a model's output
        return type(value)(**{key: kept(item) for key, item in value.items()})
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield every value inside nested dictionaries, lists and tuples, with its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    else:
        yield path, value


def same(one: Any, other: Any) -> bool:
    """Return whether two values are bit-identical; for objects other than tensors and plain values, compare types."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    values = (str, int, float, bool, type(None))
    if isinstance(one, values) and isinstance(other, values):
        return one == other
    return type(one) is type(other)


def differing(one: Any, other: Any) -> list[Path]:
    """Return the paths at which two nested values differ."""
    first, second = dict(leaves(one)), dict(leaves(other))
    missing = object()
    return [
        path
        for path in dict.fromkeys([*first, *second])
        if not same(first.get(path, missing), second.get(path, missing))
    ]


def at(value: Any, path: Path) -> Any:
    """Return the part of a value at a path; None if there is none."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """Return a value with the part at a path replaced, or added to a dictionary."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: replaced(value.get(key, {}), tuple(rest), new)}
    items = [replaced(item, tuple(rest), new) if place == key else item for place, item in enumerate(value)]
    return items if isinstance(value, list) else tuple(items)


@dataclass(frozen=True, slots=True)
class Rows:
    """Selects some batch rows from the arguments of a denoiser's evaluation.

    Attributes:
        rows: indices of the rows to select, as in the evaluation's output.
        batch: number of rows of the evaluation's output.
        per: possible numbers of rows per output row, for arguments that have several.
        latents: name of the latents argument, which can be a list with one element per row.
    """

    rows: Sequence[int]
    batch: int
    per: frozenset[int] = field(default_factory=frozenset)
    latents: str = ""

    def of(self, value: Any, path: Path = ()) -> Any:
        """Return a nested value with only the selected rows; parts of it without rows of the batch are unchanged."""
        if path and path[-1] in _OF_NO_IMAGE:
            return value
        if isinstance(value, torch.Tensor):
            return self._of_tensor(value)
        if isinstance(value, dict):
            return {key: self.of(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list | tuple):
            layers = path[:1] != (self.latents,) and all(map(_is_features, value))
            if is_list_of_rows(value, self.batch) and not layers:
                return type(value)([value[row] for row in self.rows])
            return type(value)([self.of(item, (*path, place)) for place, item in enumerate(value)])
        return value

    def _of_tensor(self, value: Tensor) -> Tensor:
        if not value.ndim:
            return value
        if value.shape[0] == self.batch:
            return value[list(self.rows)]
        per, rest = divmod(value.shape[0], self.batch)
        if not rest and (per in self.per or value.ndim >= _FEATURES):  # as for the frames of a video
            return value[[row * per + place for row in self.rows for place in range(per)]]
        return value


def _is_features(value: Any) -> bool:
    """Return whether a value holds features of all batch rows, as the output of a layer does, not those of one row."""
    return isinstance(value, torch.Tensor) and value.ndim >= _FEATURES


def keeps(evaluation: Evaluation) -> str:
    """Return the name of a cache or state that a denoiser keeps between evaluations; empty if there is none."""
    output = evaluation.output
    values = () if isinstance(output, torch.Tensor) else output if isinstance(output, tuple) else output.values()
    plain = torch.Tensor | list | tuple | dict | type(None)
    given = (name for name, argument in evaluation.given.items() if "cache" in name and not _is_setting(argument))
    return next((type(item).__name__ for item in values if not isinstance(item, plain)), "") or next(given, "")


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def is_list_of_rows(value: Any, batch: int) -> bool:
    """Return whether a list has one element per row, rather than, say, one per layer with all rows in it."""
    if not isinstance(value, list) or len(value) != batch or all(isinstance(item, float) for item in value):
        return False  # floats are factors, such as one per dimension
    tensors = [item for item in value if isinstance(item, torch.Tensor)]
    return len(tensors) != len(value) or any(not item.ndim or item.shape[0] != batch for item in tensors)


def first_of(output: Any) -> Tensor:
    """Return a denoiser's first output, one row per image; some denoisers return a list of images."""
    if isinstance(output, torch.Tensor):
        return output
    first = output[0]
    return torch.stack(first) if isinstance(first, list) else first


def with_first(output: Any, first: Tensor) -> Any:
    """Return a copy of a denoiser's output whose first tensor, or list of tensors, is replaced."""
    if isinstance(output, torch.Tensor):
        return first
    value = list(first.unbind()) if isinstance(output[0], list) else first
    if isinstance(output, tuple):
        return (value, *output[1:])
    return type(output)(**{**output, next(iter(output.keys())): value})


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return a denoiser's output with a function applied to its first tensor."""
    return with_first(output, change(first_of(output)))


def appended(value: Any, more: Any, batch: int) -> Any:
    """Append rows to every tensor in ``value`` that has ``batch`` rows: those of its counterpart in ``more``."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, more]) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: item if key in _OF_NO_IMAGE else appended(item, more[key], batch) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([appended(item, other, batch) for item, other in zip(value, more, strict=True)])
    return value
