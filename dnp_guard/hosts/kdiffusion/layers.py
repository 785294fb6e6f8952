"""Steer inside the cross-attention of a network, with hooks on its layers ``attn2`` inside a ``with`` block.

The layers that read the prompt have this name in Stable Diffusion's own UNet and in those derived from it
(``BasicTransformerBlock`` in ``ldm/modules/attention.py`` of CompVis and Stability AI, and in diffusers). Such a layer
is called once more with the negative in place of the prompt, and stopped before its output projection. This works with
any ``forward``: with a LoRA, a hypernetwork, sliced or memory-efficient attention.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.steering.attention import NotReached, Part, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    Rows = Callable[[Tensor], Mapping[int, int]]
    """Takes the prompt tokens that the layers get in an evaluation, and returns each image's row in them, by index."""

_PROMPT = ("context", "encoder_hidden_states", "value")
_MASKS = ("mask", "attention_mask", "encoder_attention_mask")
"""Arguments of a layer that describe the prompt, and not the picture."""


class _Taken(BaseException):
    """Ends the call of a layer as soon as its features are known, and carries them."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = z


class SteeredLayers:
    """The hooks that steer the network's evaluations in the thread that creates this object.

    Other threads can evaluate the same network meanwhile; the hooks do nothing there.

    Args:
        parts: the negatives, each with its images and strength; they are applied one after the other.
        rows: finds the row of each image in an evaluation.
    """

    def __init__(self, parts: Sequence[Part], rows: Rows) -> None:
        self._parts, self._rows = parts, rows
        self._thread = threading.get_ident()
        self._error: Exception | None = None
        self._missed = {image for part in parts for image in part.images}
        self._of: Mapping[int, int] | None = None
        self._taking = False
        self._z: list[tuple[Part, list[int], Tensor]] = []

    @property
    def failure(self) -> Exception | None:
        """Return the reason why an image was not steered; None if all images were."""
        missed = NotReached("no layer of the network read the prompt of an image")
        return self._error or (missed if self._missed else None)

    def begins(self, *_: Any) -> None:
        """Begin an evaluation of the network: forget the rows of the one before."""
        if not self._elsewhere():
            self._of = None

    def reads(self, layer: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Run a layer with the negatives before it reads the prompt, and keep the features; never raise an error."""
        if self._elsewhere() or self._taking:
            return
        self._z = []
        try:
            context = next((given[name] for name in _PROMPT if name in given), args[1] if len(args) > 1 else None)
            if context is None:
                return
            if self._of is None:
                self._of = self._rows(context)
            for part in self._parts:
                rows = [self._of[image] for image in part.images if image in self._of]
                if rows:
                    self._z.append((part, rows, self._read(layer, args, given, rows, part.context)))
                    self._missed -= set(part.images) & self._of.keys()
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._z, self._error = [], error

    def projects(self, _: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """Move the features that a layer is about to project away from the kept features of the negatives."""
        if self._elsewhere():
            return None
        if self._taking:
            raise _Taken(args[0])
        steered, self._z = self._z, []
        if not steered:
            return None
        try:
            z = args[0].clone()
            for part, rows, z_neg in steered:
                z[rows] = normalised(z[rows], z_neg.to(z), part.phi, part.tau, part.alpha, part.mask)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self._error = error
            return None
        return (z, *args[1:])

    def _elsewhere(self) -> bool:
        return threading.get_ident() != self._thread

    def _read(
        self,
        layer: torch.nn.Module,
        args: tuple[Any, ...],
        given: Mapping[str, Any],
        rows: list[int],
        negative: Tensor,
    ) -> Tensor:
        """Run a layer for some batch rows with a negative in place of the prompt, and return its features."""
        x = args[0] if args else given["hidden_states"]
        context = negative.to(x).expand(len(rows), -1, -1)

        def of(name: str, value: Any) -> Any:
            if name in _MASKS or value is None:
                return None
            if name in _PROMPT:
                return context
            whole = isinstance(value, torch.Tensor) and value.ndim and len(value) == len(x)
            return value[rows] if whole else value

        places = ("x", "context", "mask")
        ahead = [of(name, value) for name, value in zip(places, args, strict=False)]
        self._taking = True
        try:
            layer(*ahead, **{name: of(name, value) for name, value in given.items()})
        except _Taken as taken:
            return taken.z
        finally:
            self._taking = False
        raise NotReached("a layer does not project its output")


class Layers:
    """The cross-attention layers of a network, which read the prompt; true if the network has any.

    Args:
        network: the network, such as a UNet.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network
        named = [module for name, module in network.named_modules() if name.rpartition(".")[2] == "attn2"]
        self._layers = [(layer, out) for layer in named if (out := _projection(layer)) is not None]

    def __bool__(self) -> bool:
        return bool(self._layers)

    @contextmanager
    def steered(self, parts: Sequence[Part], rows: Rows) -> Iterator[SteeredLayers]:
        """Steer every evaluation of the network in a ``with`` block, by hooks that are removed at its end.

        Args:
            parts: the negatives, each with its images and strength; they are applied one after the other.
            rows: finds the row of each image in an evaluation.
        """
        steering, hooks = SteeredLayers(parts, rows), list[Any]()
        try:
            hooks.append(self._network.register_forward_pre_hook(steering.begins))
            for layer, out in self._layers:
                hooks.append(layer.register_forward_pre_hook(steering.reads, with_kwargs=True))
                hooks.append(out.register_forward_pre_hook(steering.projects))
            yield steering
        finally:
            for hook in hooks:
                hook.remove()


def _projection(layer: torch.nn.Module) -> torch.nn.Module | None:
    """Return a layer's output projection, ``to_out`` or its first module; None if it has none."""
    out = getattr(layer, "to_out", None)
    if isinstance(out, torch.nn.Sequential | torch.nn.ModuleList):
        return out[0] if len(out) else None
    return out if isinstance(out, torch.nn.Module) else None
