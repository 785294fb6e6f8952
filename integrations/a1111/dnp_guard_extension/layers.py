"""Steer inside the cross-attention of a UNet, by PyTorch hooks on its layers ``attn2`` that last for a ``with`` block.

The cross-attention layers, which read the prompt, have this name in Stable Diffusion's own UNet and in those derived
from it (``BasicTransformerBlock`` in ``ldm/modules/attention.py`` of CompVis and Stability AI, and in diffusers). The
hooks run such a layer once more with the negative in place of the prompt, and stop it at its output projection. So it
does not matter how its ``forward`` works: with a LoRA, a hypernetwork, sliced or memory-efficient attention.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from .attention import NotReached, Part, normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    Rows = Callable[[Tensor], Mapping[int, int]]
    """Takes the encoded prompts that a layer reads, and maps the index of each image to its row in them."""

_PROMPT = ("context", "encoder_hidden_states", "value")
_MASKS = ("mask", "attention_mask", "encoder_attention_mask")
"""Arguments of a layer that belong to the prompt's tokens, and are dropped when the layer reads a negative."""


class _Taken(BaseException):
    """Raised in a hook to stop a layer before its output projection; ``z`` holds the layer's features at that point."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = z


class SteeredLayers:
    """The hooks that steer a network's evaluations in the thread that created them.

    Other threads may evaluate the same network meanwhile; the hooks do nothing there.

    Args:
        parts: the encoded negatives, in the order in which they act.
        rows: finds the row of each image in the prompts of an evaluation.
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
        """The error that kept an image from being steered; None if all were steered."""
        missed = NotReached("no layer of the network read the prompt of an image")
        return self._error or (missed if self._missed else None)

    def begins(self, *_: Any) -> None:
        """Forget which batch rows belong to which image, because a new evaluation of the network begins."""
        if not self._elsewhere():
            self._of = None

    def reads(self, layer: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Run a layer on every negative prompt before it attends to the prompt, and keep its outputs; note an error."""
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
        """Move the features that a layer is about to project away from the features of the negatives. Never raise."""
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
        """Run a layer on some rows with a negative in place of the prompt; return the features before projection."""
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
    """The cross-attention layers of a network, which read the prompt; false in a condition if there are none.

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
        """Steer every evaluation of the network inside a ``with`` block, and remove the hooks afterwards.

        Args:
            parts: the encoded negatives, in the order in which they act.
            rows: finds the row of each image in the prompts of an evaluation.
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
    """Return a layer's output projection, which may be the first module of a sequence; None if it has none."""
    out = getattr(layer, "to_out", None)
    if isinstance(out, torch.nn.Sequential | torch.nn.ModuleList):
        return out[0] if len(out) else None
    return out if isinstance(out, torch.nn.Module) else None
