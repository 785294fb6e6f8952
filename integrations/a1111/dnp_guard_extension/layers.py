"""Steer inside the cross-attention of a network, by hooks on its layers ``attn2`` that are there for a block alone.

That is the name of the layers that read the prompt in Stable Diffusion's own UNet and in those made after it
(``BasicTransformerBlock`` in ``ldm/modules/attention.py`` of CompVis and Stability AI, and in diffusers). Whatever a
layer's ``forward`` does (a LoRA, a hypernetwork, sliced or memory-efficient attention), it is asked once more with the
negative in the place of the prompt, up to its projection of the output.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .attention import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    Rows = Callable[[Tensor], Mapping[int, int]]
    """From what the layers of an evaluation are given as the prompt, the row of each image in it."""

_PROMPT = ("context", "encoder_hidden_states", "value")
_MASKS = ("mask", "attention_mask", "encoder_attention_mask")
"""Arguments of a layer that speak of the prompt and not of the picture."""


class NotReached(Exception):
    """A network did not read its prompt in any layer that can be steered."""


@dataclass(frozen=True)
class Part:
    """A negative in the attention over the prompt of some images.

    Attributes:
        images: that are steered by it.
        context: its conditioning, [1, tokens, width].
        phi: how far it extrapolates.
        tau: how long a feature vector may become, as a multiple of what it was.
        alpha: the share of what is steered.
        mask: the share of the positions that are steered.
    """

    images: tuple[int, ...]
    context: Tensor
    phi: float
    tau: float
    alpha: float
    mask: float


class _Taken(BaseException):
    """Ends a layer where its features are known."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = z


class SteeredLayers:
    """The steering of some evaluations, by parts that act one after the other.

    Args:
        parts: in the order in which they act.
        rows: of each image in an evaluation.

    """

    def __init__(self, parts: Sequence[Part], rows: Rows) -> None:
        self._parts, self._rows = parts, rows
        self._error: Exception | None = None
        self._missed = {image for part in parts for image in part.images}
        self._of: Mapping[int, int] | None = None
        self._taking = False
        self._z: list[tuple[Part, list[int], Tensor]] = []

    @property
    def failure(self) -> Exception | None:
        """Return why an image was not steered; None where all were."""
        missed = NotReached("no layer of the network read the prompt of an image")
        return self._error or (missed if self._missed else None)

    def begins(self, *_: Any) -> None:
        """Note that the network is evaluated: its rows are not known yet."""
        self._of = None

    def reads(self, layer: torch.nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        """Have a layer read the negatives before it reads the prompt. Never raises into the evaluation."""
        if self._taking:
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
        """Move the features that a layer is about to project away from those of the negatives."""
        if self._taking:
            raise _Taken(args[0])
        if not self._z:
            return None
        z = args[0].clone()
        for part, rows, z_neg in self._z:
            z[rows] = normalised(z[rows], z_neg.to(z), part.phi, part.tau, part.alpha, part.mask)
        self._z = []
        return (z, *args[1:])

    def _read(
        self,
        layer: torch.nn.Module,
        args: tuple[Any, ...],
        given: Mapping[str, Any],
        rows: list[int],
        negative: Tensor,
    ) -> Tensor:
        """Return the features of some rows with a negative in the place of the prompt."""
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
    """The layers of a network that read the prompt; true where there are any.

    Args:
        network: such as a UNet.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self._network = network
        named = [module for name, module in network.named_modules() if name.rpartition(".")[2] == "attn2"]
        self._layers = [(layer, out) for layer in named if (out := _projection(layer)) is not None]

    def __bool__(self) -> bool:
        return bool(self._layers)

    @contextmanager
    def steered(self, parts: Sequence[Part], rows: Rows) -> Iterator[SteeredLayers]:
        """Steer every evaluation of the network within a block; nothing is left behind.

        Args:
            parts: in the order in which they act.
            rows: of each image in an evaluation.
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
    """Return the projection of a layer's output: alone, or the first of several modules."""
    out = getattr(layer, "to_out", None)
    if isinstance(out, torch.nn.Sequential | torch.nn.ModuleList):
        return out[0] if len(out) else None
    return out if isinstance(out, torch.nn.Module) else None
