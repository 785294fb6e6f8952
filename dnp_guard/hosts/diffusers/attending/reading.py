"""Find out how a denoiser's attention layers read the prompt, from its first evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.attending.watched import CONTEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.attending.watched import Layer


@dataclass(frozen=True, slots=True)
class Note:
    """A note on the arguments and the output of one attention layer.

    Attributes:
        name: name of the layer.
        tokens: number of tokens of the layer's queries.
        context: the layer's input for keys and values, such as the prompt; None if it has none.
        both: whether the layer returned two streams, picture and text.
        features: number of tokens that the layer's output projection got; without one, number that the layer returned.
    """

    name: str
    tokens: int
    context: Any
    both: bool
    features: int


class Reading:
    """A stage (handler of a denoiser's attention layers) that takes notes on the layers, and changes nothing.

    Attributes:
        notes: notes on the layers, in the order in which they ran.
    """

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._features = 0

    def attend(self, layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Run a layer, and take a note of its arguments and output."""
        self._features = 0
        hidden, answer = given.get("hidden_states"), run(**given)
        if isinstance(hidden, torch.Tensor) and hidden.ndim > 1:
            both = isinstance(answer, tuple)
            features = self._features or (answer[0] if both else answer).shape[1]
            self.notes.append(Note(layer.name, hidden.shape[1], given.get(CONTEXT), both, features))
        return answer

    def features(self, _layer: Layer, z: Tensor) -> Tensor:
        """Remember the number of tokens that the layer projects; return the features unchanged."""
        self._features = z.shape[1]
        return z


@dataclass(frozen=True, slots=True)
class Reach:
    """The attention layers of a denoiser that read the prompt.

    Attributes:
        cross: names of the cross-attention layers; empty if there is joint attention.
        joint: names of the joint-attention layers, with the slice of their tokens that belongs to the picture; None in
            place of a slice if it is not known whether picture or text comes first.
        context: the prompt as the cross-attention layers get it, the same for all.
        text: number of the prompt's tokens in joint attention.
    """

    cross: frozenset[str]
    joint: Mapping[str, slice | None]
    context: Any = None
    text: int = 0


def reach(notes: Sequence[Note]) -> Reach:
    """Find the layers that read the prompt, from notes on all layers.

    Raises:
        CannotSteer: no layer reads the prompt in a known way.
    """
    reading = [note for note in notes if note.context is not None]
    if not reading:
        raise _unknown("no attention layer of its denoiser is given the prompt beside the picture")
    if not any(note.both for note in reading):
        context = reading[0].context
        if any(arguments.differing(context, note.context) for note in reading):
            raise _unknown("the attention layers of its denoiser are given different forms of the prompt")
        return Reach(frozenset(note.name for note in reading), {}, context)
    joint: dict[str, slice | None] = {}
    text, picture = reading[0].context.shape[1], reading[0].tokens
    for note in notes:
        if note.context is not None and note.features == note.tokens == picture:
            joint[note.name] = slice(None)
        elif note.context is not None and note.features == picture + text:
            joint[note.name] = slice(text, None)  # text comes first in every processor that projects both at once
        elif note.context is None and note.features == note.tokens == picture + text:
            joint[note.name] = None
        elif note.context is not None:
            raise _unknown(f"its layer {note.name} answers {note.features} tokens to {note.tokens}")
    return Reach(frozenset(), joint, None, text)


def _unknown(reason: str) -> CannotSteer:
    return CannotSteer(
        f"guidance mode 'attention' does not reach its prompt: {reason}",
        hint="Use guidance mode 'auto' or 'separate', which steer by its outputs.",
    )
