"""The third branch: what the negatives of one generation add to its guided prediction, from step to step.

Knows no host: a host asks what has to be evaluated at a step, evaluates it, and adds what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.steering import guidance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from dnp_guard.policy import Guidance


@dataclass(frozen=True, slots=True)
class Term:
    """One negative term of one image, ready for the denoiser.

    Attributes:
        text: its words; the same words are the same conditioning.
        conditioning: what the host's denoiser takes for them.
        scale: s of the separate term.
    """

    text: str
    conditioning: Any
    scale: float


@dataclass(frozen=True, slots=True)
class _Known:
    """d = e_n - e_u of one term of one image, [...], and the steps it has been used for since it was evaluated."""

    d: Tensor
    age: int = 0


class Branch:
    """The negatives of one generation.

    Args:
        settings: how a negative enters the guidance.
        channels: which dimension of a prediction holds channels, where it is not a sequence.
    """

    def __init__(self, settings: Guidance, channels: int = 1) -> None:
        self._settings = settings
        self._channels = channels
        self._known: dict[tuple[int, str], _Known] = {}

    def due(self, active: Mapping[int, Sequence[Term]], *, begins: bool = True) -> list[tuple[int, Term]]:
        """What has to be evaluated now, image by image; to be called once an evaluation of the host's.

        Under ``guidance.reuse: k`` the difference d = e_n - e_u of one step serves for its sub-steps and for the k - 1
        steps after it, as long as its words stay.

        Args:
            active: the terms of each image that is steered, by its index.
            begins: whether the evaluation begins a step, and is no sub-step of one.
        """
        every = self._settings.reuse or 1
        known: dict[tuple[int, str], _Known] = {}
        due = []
        for index, terms in active.items():
            for term in terms:
                before = self._known.get((index, term.text))
                age = before.age + begins if before is not None else every
                if before is None or age >= every or every == 1:
                    due.append((index, term))
                else:
                    known[index, term.text] = _Known(before.d, age)
        self._known = known
        return due

    def keep(self, due: Sequence[tuple[int, Term]], e_n: Tensor, e_u: Tensor) -> None:
        """Take the evaluations of what was due.

        Args:
            due: from :meth:`due`.
            e_n: one row for each of them, [len(due), ...].
            e_u: of every image of the batch, [B, ...].
        """
        for (index, term), row in zip(due, e_n, strict=True):
            self._known[index, term.text] = _Known(row - e_u[index])

    def delta(self, active: Mapping[int, Sequence[Term]], e_u: Tensor, e_c: Tensor | None) -> Tensor:
        """What is to be added to the guided prediction of each image that is steered, [len(active), ...].

        Args:
            active: the terms of each image that is steered, by its index, as given to :meth:`due` at this step.
            e_u: [B, ...]; without guidance the host's only prediction.
            e_c: [B, ...]; None without guidance.
        """
        return torch.cat([self._of(index, terms, e_u, e_c) for index, terms in active.items()])

    def _of(self, index: int, terms: Sequence[Term], e_u: Tensor, e_c: Tensor | None) -> Tensor:
        d = torch.stack([self._known[index, term.text].d for term in terms])
        scales = torch.tensor([term.scale for term in terms], device=d.device, dtype=d.dtype)
        delta = guidance.push(d, scales.view(-1, *[1] * (d.ndim - 1)))
        if self._settings.mask is not None:
            delta = guidance.within(delta, d, self._settings.mask, self._channels)
        delta = delta.sum(0, keepdim=True) if len(terms) > 1 else delta
        if self._settings.mode == "orthogonal" and e_c is not None:
            delta = guidance.orthogonal(delta, e_c[index : index + 1], e_u[index : index + 1])
        return delta
