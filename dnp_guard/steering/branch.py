"""The third branch of guidance, beside the conditional and the unconditional one: the guard's negative prompts.

This module calls no denoiser. At every step, the host (the integration with a pipeline) asks which negative prompts
the denoiser must evaluate, evaluates them, and adds the difference computed here to its guided prediction.
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
    """The encoded negative prompt of one image: a term of the guidance.

    Attributes:
        text: words of the negative prompt; equal words have equal conditioning.
        conditioning: the words encoded for the denoiser; None if it steers in attention only.
        scale: scale s in the guidance term -s (e_n - e_u); 0 if it steers in attention only.
        attention: parameters for steering in attention; None if it does not steer there.
        parts: for steering in attention, one term per category, applied one after the other.
    """

    text: str
    conditioning: Any
    scale: float
    attention: InAttention | None = None
    parts: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """The difference d = e_n - e_u of one image, stored to be used again in later steps.

    Attributes:
        text: words of the negative prompt.
        d: denoiser output for the negative prompt minus the unconditional one, [...].
        age: number of steps begun since the denoiser evaluated it.
    """

    text: str
    d: Tensor
    age: int = 0


class Branch:
    """The negative prompts of one generation: which of them to evaluate at a step, and how they change the guidance.

    Args:
        settings: section ``guidance`` of the policy.
        channels: index of the channel dimension in a prediction; ignored for packed ones, [B, positions, C].
    """

    def __init__(self, settings: Guidance, channels: int = 1) -> None:
        self._settings = settings
        self._channels = channels
        self._known: dict[int, _Known] = {}

    def due(self, active: Mapping[int, Term], *, begins: bool = True) -> list[tuple[int, Term]]:
        """Return the terms that the denoiser must evaluate now, with their image indices; call before every evaluation.

        Under ``guidance.reuse: k`` the difference d = e_n - e_u of one step is used again in its sub-steps and in the
        k - 1 steps after it, as long as the words stay the same.

        Args:
            active: term of every steered image, by batch index.
            begins: whether the evaluation begins a step; False in a sub-step, such as the second of a Heun step.
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
        """Store the differences e_n - e_u of the due terms, from which :meth:`delta` is computed.

        Args:
            due: the terms that :meth:`due` returned.
            e_n: denoiser outputs for the due terms, [len(due), ...].
            e_u: unconditional denoiser outputs for all images of the batch, [B, ...].
        """
        for (index, term), row in zip(due, e_n, strict=True):
            self._known[index] = _Known(term.text, row - e_u[index])

    def delta(self, active: Mapping[int, Term]) -> Tensor:
        """Return the difference to add to the guided prediction of each steered image, [len(active), ...].

        Args:
            active: term of every steered image, by batch index, as passed to :meth:`due` at this step.
        """
        d = torch.stack([self._known[index].d for index in active])
        scales = torch.tensor([term.scale for term in active.values()], device=d.device, dtype=d.dtype)
        delta = guidance.push(d, scales.view(-1, *[1] * (d.ndim - 1)))
        if self._settings.mask is not None:
            delta = guidance.within(delta, d, self._settings.mask, self._channels)
        return delta
