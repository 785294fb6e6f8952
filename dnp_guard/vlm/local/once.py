"""Rows read whole, but each picture seen by the model's vision tower only once."""

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
    """Puts every question about every image as one row a pair, and lets the vision tower read each image once.

    For models whose rows cannot be cut at the image, such as those with positions in two dimensions or that read an
    image as several tiles.

    Args:
        reader: the model.

    Raises:
        ValueError: it has no vision tower of a known name.
    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        inner = getattr(reader.model, "model", reader.model)
        towers = (getattr(inner, name, None) for name in _TOWERS)
        self._tower: nn.Module | None = next((each for each in towers if each is not None), None)
        if self._tower is None:
            raise ValueError("no vision tower is known in this model")

    def __call__(self, images: Sequence[Image], questions: Sequence[str]) -> Tensor:
        """Log odds of "yes", float32 on the CPU, shape [images, questions]."""
        reader = self.reader
        prompts = [reader.prompt(question) for question in questions]
        groups = [prompts[at : at + reader.rows] for at in range(0, len(prompts), reader.rows)]
        each = max(1, reader.rows // len(groups[0]))
        batches = [images[at : at + each] for at in range(0, len(images), each)]
        return torch.cat([torch.cat([self._batch(batch, group) for group in groups], 1) for batch in batches]).cpu()

    def _batch(self, images: Sequence[Image], prompts: Sequence[str]) -> Tensor:
        inputs = self.reader.encode([(image, prompt) for image in images for prompt in prompts])
        assert self._tower is not None  # noqa: S101 (there is no instance without one)
        with _thinned(self._tower, len(images), len(prompts)):
            logits, _ = self.reader.logits(1, **inputs, use_cache=False)
        return self.reader.log_odds(logits[:, -1]).reshape(len(images), len(prompts))


@contextmanager
def _thinned(tower: nn.Module, images: int, copies: int) -> Iterator[None]:
    """Inside, a tower that is given each image several times sees it once, and answers as often as it was asked."""
    thin = False

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal thin
        given = [each for each in (*args, *kwargs.values()) if isinstance(each, torch.Tensor)]
        thin = all(_repeats(each, images, copies) for each in given)
        if not thin:  # images of several sizes
            return None
        taken = tuple(_first(each, images, copies) for each in args)
        return taken, {name: _first(each, images, copies) for name, each in kwargs.items()}

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
    """Whether a tensor holds the rows of each image so many times over."""
    if value.ndim == 0 or value.shape[0] % (images * copies):
        return False
    parts = _parts(value, images, copies)
    return bool((parts == parts[:, :1]).all())


def _first(value: Any, images: int, copies: int) -> Any:
    return _parts(value, images, copies)[:, 0].flatten(0, 1) if isinstance(value, torch.Tensor) else value


def _spread(value: Any, images: int, copies: int) -> Any:
    """What came of each image, as often as the image was given; whatever holds it keeps its kind."""
    if isinstance(value, torch.Tensor):
        parts = value.reshape(images, 1, -1, *value.shape[1:])
        return parts.expand(-1, copies, *parts.shape[2:]).flatten(0, 2)
    if isinstance(value, dict):
        return type(value)(**{name: _spread(each, images, copies) for name, each in value.items()})
    if isinstance(value, list | tuple):
        return type(value)(_spread(each, images, copies) for each in value)
    return value
