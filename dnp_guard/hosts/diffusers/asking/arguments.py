"""The arguments of a denoiser: what is in them, whether they are the same, and the rows of some images."""

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
"""An argument's name, then the keys and indices that lead into it."""

_OF_NO_IMAGE = frozenset(
    {"freqs_cis", "image_rotary_emb", "img_ids", "rotary_emb", "text_rope_pos", "txt_ids", "visual_rope_pos"}
)
"""Positions, which may happen to be as many as the images."""

_FEATURES = 4
"""Dimensions from which a tensor of several rows to one of the output holds features of its frames."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluation of a denoiser by its pipeline.

    Attributes:
        name: the denoiser's in its pipeline.
        part: the denoiser.
        given: its arguments by name.
        by_place: names of those that were given by place.
        output: what it answered; None before that.
    """

    name: str
    part: Any
    given: Mapping[str, Any]
    by_place: tuple[str, ...] = ()
    output: Any = None

    def again(self, given: Mapping[str, Any]) -> Any:
        """Evaluate with other arguments, handed over as the pipeline hands its own."""
        more = dict(given)
        args = [more.pop(name) for name in self.by_place]
        return self.part(*args, **more)


def evaluation(
    name: str, part: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any = None
) -> Evaluation:
    """An evaluation with its arguments by name; lists are copied, as some denoisers use theirs up."""
    names: tuple[str, ...] = ()
    if args:
        inner = getattr(part, "_orig_mod", part)  # a compiled module takes anything
        parameters = inspect.signature(getattr(inner, "forward", inner)).parameters
        names = tuple(parameters)[: len(args)]
    given = {**dict(zip(names, args, strict=True)), **kwargs}
    return Evaluation(name, part, {key: kept(value) for key, value in given.items()}, names, output)


def kept(value: Any) -> Any:
    """A value with the lists in it copied, as pipelines and denoisers use up and change those that they are given."""
    if type(value) is dict:
        return {key: kept(each) for key, each in value.items()}
    if type(value) in {list, tuple}:
        return type(value)(kept(each) for each in value)
    if isinstance(value, OrderedDict) and any(isinstance(each, list) for each in value.values()):  # a model's output
        return type(value)(**{key: kept(each) for key, each in value.items()})
    return value


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything inside dictionaries, lists and tuples, with the way to it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from leaves(each, (*path, key))
    elif isinstance(value, list | tuple):
        for place, each in enumerate(value):
            yield from leaves(each, (*path, place))
    else:
        yield path, value


def same(one: Any, other: Any) -> bool:
    """Whether two leaves are equal to the bit; what is no value is not compared."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    values = (str, int, float, bool, type(None))
    if isinstance(one, values) and isinstance(other, values):
        return one == other
    return type(one) is type(other)


def differing(one: Any, other: Any) -> list[Path]:
    """Where two values differ."""
    first, second = dict(leaves(one)), dict(leaves(other))
    missing = object()
    return [
        path
        for path in dict.fromkeys([*first, *second])
        if not same(first.get(path, missing), second.get(path, missing))
    ]


def at(value: Any, path: Path) -> Any:
    """One part of a value; None where there is none."""
    for key in path:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def replaced(value: Any, path: Path, new: Any) -> Any:
    """The value with one part of it replaced, or a dictionary's added."""
    if not path:
        return new
    key, *rest = path
    if isinstance(value, dict):
        return {**value, key: replaced(value.get(key, {}), tuple(rest), new)}
    items = [replaced(each, tuple(rest), new) if place == key else each for place, each in enumerate(value)]
    return items if isinstance(value, list) else tuple(items)


@dataclass(frozen=True, slots=True)
class Rows:
    """Which rows of an evaluation are taken.

    Attributes:
        rows: indices among those of its output.
        batch: rows of its output.
        per: for arguments of several rows to one of the output: how many.
        latents: the name of the latents, which may be a list with one element per row.
    """

    rows: Sequence[int]
    batch: int
    per: frozenset[int] = field(default_factory=frozenset)
    latents: str = ""

    def of(self, value: Any, path: Path = ()) -> Any:
        """These rows of everything inside a value that has one per row of the output; the rest stays as it is."""
        if path and path[-1] in _OF_NO_IMAGE:
            return value
        if isinstance(value, torch.Tensor):
            return self._of_tensor(value)
        if isinstance(value, dict):
            return {key: self.of(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list | tuple):
            layers = path[:1] != (self.latents,) and all(map(_is_features, value))
            if is_list_of_rows(value, self.batch) and not layers:
                return type(value)([value[row] for row in self.rows])
            return type(value)([self.of(each, (*path, place)) for place, each in enumerate(value)])
        return value

    def _of_tensor(self, value: Tensor) -> Tensor:
        if not value.ndim:
            return value
        if value.shape[0] == self.batch:
            return value[list(self.rows)]
        per, rest = divmod(value.shape[0], self.batch)
        if not rest and (per in self.per or value.ndim >= _FEATURES):  # as of the frames of a video
            return value[[row * per + place for row in self.rows for place in range(per)]]
        return value


def _is_features(value: Any) -> bool:
    """Whether a value is features of all rows, as a layer's are, rather than of one."""
    return isinstance(value, torch.Tensor) and value.ndim >= _FEATURES


def keeps(evaluation: Evaluation) -> str:
    """What a denoiser is given, or hands on, to keep from one evaluation to the next; empty where there is nothing."""
    output = evaluation.output
    values = () if isinstance(output, torch.Tensor) else output if isinstance(output, tuple) else output.values()
    plain = torch.Tensor | list | tuple | dict | type(None)
    given = (name for name, each in evaluation.given.items() if "cache" in name and not _is_setting(each))
    return next((type(each).__name__ for each in values if not isinstance(each, plain)), "") or next(given, "")


def _is_setting(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def is_list_of_rows(value: Any, batch: int) -> bool:
    """Whether a list has one element per row, rather than, say, one per layer with all rows in each."""
    if not isinstance(value, list) or len(value) != batch or all(isinstance(each, float) for each in value):
        return False  # floats are factors, as one per dimension
    tensors = [each for each in value if isinstance(each, torch.Tensor)]
    return len(tensors) != len(value) or any(not each.ndim or each.shape[0] != batch for each in tensors)


def first_of(output: Any) -> Tensor:
    """A denoiser's first output, one row an image; some give a list of images."""
    if isinstance(output, torch.Tensor):
        return output
    first = output[0]
    return torch.stack(first) if isinstance(first, list) else first


def with_first(output: Any, first: Tensor) -> Any:
    """A copy of a denoiser's output with its first tensor, or list of tensors, replaced."""
    if isinstance(output, torch.Tensor):
        return first
    value = list(first.unbind()) if isinstance(output[0], list) else first
    if isinstance(output, tuple):
        return (value, *output[1:])
    return type(output)(**{**output, next(iter(output.keys())): value})


def mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A denoiser's output with its first tensor changed."""
    return with_first(output, change(first_of(output)))


def appended(value: Any, more: Any, batch: int) -> Any:
    """Every tensor of that batch size inside a value, followed by the rows of its counterpart in ``more``."""
    if isinstance(value, torch.Tensor):
        return torch.cat([value, more]) if value.ndim and value.shape[0] == batch else value
    if isinstance(value, dict):
        return {key: each if key in _OF_NO_IMAGE else appended(each, more[key], batch) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([appended(each, other, batch) for each, other in zip(value, more, strict=True)])
    return value
