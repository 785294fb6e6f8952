"""The third branch: what the negatives of one generation add to the guided prediction, step by step.

It knows no host: a host asks which evaluations are due at a step, makes them, and adds the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.steering import guidance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.policy import Guidance
    from dnp_guard.types import InAttention


@dataclass(frozen=True, slots=True)
class Term:
    """The negative of one image, ready for the denoiser.

    Attributes:
        text: its words; equal words have equal conditioning.
        conditioning: the denoiser's conditioning for the words; None if only the parts are evaluated.
        scale: s of the separate term; 0 if there is none beside attention.
        attention: its strength in attention space, if it steers there.
        parts: in attention space, one term per category, which steer one after the other.
    """

    text: str
    conditioning: Any
    scale: float
    attention: InAttention | None = None
    parts: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """d = e_n - e_u of one image, [...], with its words and the steps for which it was used since its evaluation."""

    text: str
    d: Tensor
    age: int = 0


class Branch:
    """The negatives of one generation.

    Args:
        settings: how a negative enters the guidance.
        channels: dimension of a prediction that holds the channels, unless it is a sequence.
    """

    def __init__(self, settings: Guidance, channels: int = 1) -> None:
        self._settings = settings
        self._channels = channels
        self._known: dict[int, _Known] = {}

    def due(self, active: Mapping[int, Term], *, begins: bool = True) -> list[tuple[int, Term]]:
        """Return the terms that have to be evaluated now, per image; call it once per evaluation of the host.

        Under ``guidance.reuse: k`` the difference d = e_n - e_u of one step serves for its sub-steps and for the k - 1
        steps after it, as long as the words stay the same.

        Args:
            active: term of each steered image, by index.
            begins: whether the evaluation begins a step and is not a sub-step of one.
        """
        every = self._settings.reuse or 1
        known: dict[int, _Known] = {}
        due = []
        for index, term in active.items():
            before = self._known.get(index)
            if before is None or before.text != term.text or every == 1 or before.age + begins >= every:
                due.append((index, term))
            else:
                known[index] = replace(before, age=before.age + begins)
        self._known = known
        return due

    def keep(self, due: Sequence[tuple[int, Term]], e_n: Tensor, e_u: Tensor) -> None:
        """Take the evaluations of the due terms.

        Args:
            due: the terms that :meth:`due` returned.
            e_n: one row per due term, [len(due), ...].
            e_u: one row per image of the batch, [B, ...].
        """
        for (index, term), row in zip(due, e_n, strict=True):
            self._known[index] = _Known(term.text, row - e_u[index])

    def delta(self, active: Mapping[int, Term]) -> Tensor:
        """Return the difference to add to the guided prediction of each steered image, [len(active), ...].

        Args:
            active: term of each steered image, by index, as passed to :meth:`due` at this step.
        """
        d = torch.stack([self._known[index].d for index in active])
        scales = torch.tensor([term.scale for term in active.values()], device=d.device, dtype=d.dtype)
        delta = guidance.push(d, scales.view(-1, *[1] * (d.ndim - 1)))
        if self._settings.mask is not None:
            delta = guidance.within(delta, d, self._settings.mask, self._channels)
        return delta
