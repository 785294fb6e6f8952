"""Compute one whole token sequence per image and question, but run the vision tower only once per image."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from PIL.Image import Image
    from torch import Tensor, nn

    from dnp_guard.vlm.local.forward import Reader

_TOWERS = ("vision_tower", "visual", "vision_model")


class SeenOnce:
    """Computes one token sequence per image and question, and runs the vision tower once per image.

    It is for models whose sequences cannot be cut after the image, such as those with two-dimensional positions, or
    those that read an image as several tiles.

    Args:
        reader: the model.

    Raises:
        ValueError: the model has no vision tower of a known name.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        inner = getattr(reader.model, "model", reader.model)
        towers = (getattr(inner, name, None) for name in _TOWERS)
        self._tower: nn.Module | None = next((tower for tower in towers if tower is not None), None)
        if self._tower is None:
            raise ValueError("no vision tower is known in this model")

    def __call__(self, images: Sequence[Image], questions: Sequence[str]) -> Tensor:
        """Return the log odds of "yes", float32 on the CPU, shape [images, questions]."""
        reader = self.reader
        prompts = [reader.prompt(question) for question in questions]
        groups = [prompts[at : at + reader.rows] for at in range(0, len(prompts), reader.rows)]
        size = max(1, reader.rows // len(groups[0]))
        batches = [images[at : at + size] for at in range(0, len(images), size)]
        return torch.cat([torch.cat([self._batch(batch, group) for group in groups], 1) for batch in batches]).cpu()

    def _batch(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        inputs = self.reader.encode([(image, prompt) for image in images for prompt in prompts])
        assert self._tower is not None  # noqa: S101 (the constructor raises without one)
        with _thinned(self._tower, len(images), len(prompts)):
            logits, _ = self.reader.logits(1, **inputs, use_cache=False)
        return self.reader.log_odds(logits[:, -1]).reshape(len(images), len(prompts))


@contextmanager
def _thinned(tower: nn.Module, images: int, copies: int) -> Iterator[None]:
    """Let a vision tower whose input holds ``copies`` of every image compute only one of them, and copy its output."""
    thin = False

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal thin
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, torch.Tensor)]
        thin = all(_repeats(value, images, copies) for value in tensors)
        if not thin:  # images of several sizes
            return None
        taken = tuple(_first(value, images, copies) for value in args)
        return taken, {name: _first(value, images, copies) for name, value in kwargs.items()}

    def after(_: nn.Module, _args: Any, output: Any) -> Any:
        return _spread(output, images, copies) if thin else None

    handles = (tower.register_forward_pre_hook(before, with_kwargs=True), tower.register_forward_hook(after))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _parts(value: Tensor, images: int, copies: int) -> Tensor:
    return value.reshape(images, copies, -1, *value.shape[1:])


def _repeats(value: Tensor, images: int, copies: int) -> bool:
    """Return whether a tensor holds ``copies`` equal rows for every image."""
    if value.ndim == 0 or value.shape[0] % (images * copies):
        return False
    parts = _parts(value, images, copies)
    return bool((parts == parts[:, :1]).all())


def _first(value: Any, images: int, copies: int) -> Any:
    return _parts(value, images, copies)[:, 0].flatten(0, 1) if isinstance(value, torch.Tensor) else value


def _spread(value: Any, images: int, copies: int) -> Any:
    """Repeat a vision tower's output for every image ``copies`` times; containers of tensors keep their type."""
    if isinstance(value, torch.Tensor):
        parts = value.reshape(images, 1, -1, *value.shape[1:])
        return parts.expand(-1, copies, *parts.shape[2:]).flatten(0, 2)
    if isinstance(value, dict):
        return type(value)(**{name: _spread(item, images, copies) for name, item in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(_spread(item, images, copies) for item in value)
    return value
