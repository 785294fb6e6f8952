"""Interfaces for hosts, the adapters of pipelines and samplers: a view of each step, and a holder of negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.types import Negative


class View:
    """View of the images predicted at one step; they are decoded and compared only on request."""

    def pictures(self) -> Sequence[Image]:
        """Decode the predicted images to RGB, in batch order: one picture per image, or the frames of every video."""
        raise NotImplementedError

    def likeness(self) -> Sequence[float]:
        """Return each image's cosine similarity, -1…1, of prediction and last decoded prediction; empty if unknown."""
        return ()

    def nearness(self) -> Sequence[Mapping[str, float]]:
        """Return the latent probe's score divided by its threshold, per image and category.

        A query is needed from 1 on. Without a probe, the result is empty.
        """
        return ()


@dataclass(frozen=True, slots=True)
class Pictures(View):
    """View of a step whose pictures the host has already decoded.

    Attributes:
        shown: RGB pictures, one per image.
        similarities: cosine similarity of each prediction to the last decoded one; empty if the host measured none.
    """

    shown: Sequence[Image]
    similarities: Sequence[float] = ()

    def pictures(self) -> Sequence[Image]:
        """Return the decoded pictures."""
        return self.shown

    def likeness(self) -> Sequence[float]:
        """Return the similarity of each image's prediction to its last decoded one, as the host measured it."""
        return self.similarities


class Holder(Protocol):
    """Part of a host that holds the negative prompts by which the next steps are steered."""

    def hold(self, negatives: Sequence[Negative | None]) -> None:
        """Steer each image by its negative prompt from the next step on; None stops the steering of an image."""
