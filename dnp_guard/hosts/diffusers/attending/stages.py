"""Stages: handlers of a denoiser's attention layers, which define how the layers run during one evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.attending.watched import CONTEXT
from dnp_guard.steering.attention import normalised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from dnp_guard.hosts.diffusers.attending.reading import Reach
    from dnp_guard.hosts.diffusers.attending.watched import Layer
    from dnp_guard.types import InAttention

_OF_CONTEXT = (CONTEXT, "attention_mask", "encoder_attention_mask")
"""Arguments of a cross-attention layer that describe the prompt, and not the picture."""


class StageReached(BaseException):
    """Ends an evaluation at the first layer that reads the prompt, and carries the layer's arguments for the prompt."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__()
        self.given = given


class Moved(BaseException):
    """Ends an evaluation when a layer gets other values for the prompt than at the first step."""


class _Taken(BaseException):
    """Ends the run of a layer as soon as its features are known, and carries them."""

    def __init__(self, z: Tensor) -> None:
        super().__init__()
        self.z = z


class Asking:
    """A stage (handler of a denoiser's attention layers) that finds out the layers' arguments for a prompt.

    Args:
        reach: attention layers that read the prompt.
    """

    def __init__(self, reach: Reach) -> None:
        self._reach = reach

    def attend(self, layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Run a layer, or end the evaluation if the layer reads the prompt.

        Raises:
            StageReached: the layer reads the prompt.
        """
        if layer.name in self._reach.cross:
            raise StageReached({name: given[name] for name in _OF_CONTEXT if name in given})
        return run(**given)

    def features(self, _layer: Layer, z: Tensor) -> Tensor:
        """Return the features unchanged."""
        return z


@dataclass(frozen=True, slots=True)
class Steered:
    """Batch rows that are steered by negatives of the same shape.

    Attributes:
        rows: indices of the batch rows.
        how: strength of the steering, one per row.
        given: the layers' arguments for the negatives, which replace those for the prompt.
    """

    rows: Sequence[int]
    how: Sequence[InAttention]
    given: Mapping[str, Any]


class Crossing:
    """A stage (handler of a denoiser's attention layers) that steers cross-attention.

    Layers that read the prompt also read the negatives of the steered rows.

    Args:
        reach: attention layers that read the prompt.
        steered: the steered rows, grouped by the shape of their negatives, in the order of steering.
        batch: number of rows of the evaluation.
        context: the prompt as the layers got it at the first step, and have to get it again; None if it can differ.
    """

    def __init__(self, reach: Reach, steered: Sequence[Steered], batch: int, context: Any) -> None:
        self._reach = reach
        self._steered = steered
        self._batch = batch
        self._context = context
        self._taking = False
        self._z: list[Tensor] = []

    def attend(self, layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Run a layer with the negatives, then with the prompt, and return the steered output."""
        if layer.name not in self._reach.cross:
            return run(**given)
        if self._context is not None:
            if arguments.differing(given[CONTEXT], self._context):
                raise Moved
            self._context = None  # all layers get the same context
        per = len(given["hidden_states"]) // self._batch
        self._z = [self._negative(_of_rows(given, group, per), run) for group in self._steered]
        answer = run(**given)
        if not layer.taps:
            answer = self._mixed(answer)
        self._z = []
        return answer

    def features(self, _layer: Layer, z: Tensor) -> Tensor:
        """Return the features for the prompt, moved away from the features for the negatives."""
        if self._taking:
            raise _Taken(z)
        return self._mixed(z)

    def _negative(self, given: Mapping[str, Any], run: Callable[..., Any]) -> Tensor:
        self._taking = True
        try:
            answer: Tensor = run(**given)
        except _Taken as taken:
            return taken.z
        finally:
            self._taking = False
        return answer

    def _mixed(self, z: Tensor) -> Tensor:
        if not self._z:
            return z
        mixed = z.clone()
        for group, z_neg in zip(self._steered, self._z, strict=True):
            rows = _expanded(group.rows, len(z) // self._batch)
            mixed[rows] = _away(mixed[rows], z_neg, group.how)
        return mixed


@dataclass(frozen=True, slots=True)
class Pairs:
    """Batch rows of prompts, paired with the rows of their negatives; all pairs are steered in the same turn.

    Attributes:
        prompt: rows of the prompts.
        negative: rows of the negatives, in the same order.
        how: strength of the steering, one per pair.
    """

    prompt: Sequence[int]
    negative: Sequence[int]
    how: Sequence[InAttention]


class Joining:
    """A stage (handler of a denoiser's attention layers) that steers joint attention.

    Rows with the negatives are evaluated in one batch with the rows of the prompts.

    Args:
        reach: joint-attention layers, with the picture's tokens in them.
        turns: pairs of a prompt's and a negative's row, by turn; the turns steer one after the other.
    """

    def __init__(self, reach: Reach, turns: Sequence[Pairs]) -> None:
        self._reach = reach
        self._turns = turns
        self._picture: slice | None = None

    def attend(self, layer: Layer, given: Mapping[str, Any], run: Callable[..., Any]) -> Any:
        """Run a layer, and steer its output if it has no output projection."""
        if layer.name not in self._reach.joint:
            return run(**given)
        self._picture = self._reach.joint[layer.name] or self._picture_of(given["hidden_states"])
        answer = run(**given)
        if not layer.taps:
            both = isinstance(answer, tuple)
            mixed = self._mixed(answer[0] if both else answer)
            answer = (mixed, *answer[1:]) if both else mixed
        self._picture = None
        return answer

    def features(self, _layer: Layer, z: Tensor) -> Tensor:
        """Return the features with the picture's tokens steered away from the negatives, in both rows of every pair."""
        return z if self._picture is None else self._mixed(z)

    def _picture_of(self, hidden: Tensor) -> slice:
        """Return the slice of the picture's tokens, which are those that are equal in the two rows of a pair."""
        first = self._turns[0]
        apart = (hidden[list(first.prompt)] - hidden[list(first.negative)]).float().abs().sum((0, 2))
        text = self._reach.text
        return slice(text, None) if apart[0] > apart[-1] else slice(0, hidden.shape[1] - text)

    def _mixed(self, z: Tensor) -> Tensor:
        before, mixed = z[:, self._picture], z.clone()
        shown = mixed[:, self._picture]  # a view
        for turn in self._turns:
            rows = list(turn.prompt)
            shown[rows] = _away(shown[rows], before[list(turn.negative)], turn.how)
        for turn in self._turns:
            shown[list(turn.negative)] = shown[list(turn.prompt)]
        return mixed


def _away(z_pos: Tensor, z_neg: Tensor, how: Sequence[InAttention]) -> Tensor:
    """Apply normalised attention guidance (arXiv 2505.21179) to rows, each with its own strength."""
    per, wide = len(z_pos) // len(how), torch.promote_types(z_pos.dtype, torch.float32)

    def rows(values: list[float], dtype: torch.dtype) -> Tensor:
        repeated = torch.tensor(values, device=z_pos.device, dtype=dtype).repeat_interleave(per)
        return repeated.view(-1, *[1] * (z_pos.ndim - 1))

    alpha, tau = rows([part.alpha for part in how], z_pos.dtype), rows([part.tau for part in how], wide)
    first = how[0]
    return normalised(z_pos, z_neg.to(z_pos), first.phi, tau, alpha, first.mask)


def _expanded(rows: Sequence[int], per: int) -> list[int]:
    return [row * per + place for row in rows for place in range(per)]


def _of_rows(given: Mapping[str, Any], steered: Steered, per: int) -> dict[str, Any]:
    """Return the arguments of a layer for the steered rows, with the negatives in place of the prompt."""
    batch, rows = len(given["hidden_states"]), _expanded(steered.rows, per)

    def part() -> Iterator[tuple[str, Any]]:
        for name, value in given.items():
            is_of_rows = isinstance(value, torch.Tensor) and value.ndim and len(value) == batch
            yield name, value[rows] if is_of_rows else value

    return {**dict(part()), **steered.given}
