"""Interfaces that a host implements for a driver: a view of each step, and a holder of negatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.types import Negative


class View:
    """Contents of a step, computed only on request."""

    def pictures(self) -> Sequence[Image]:
        """Decode the prediction to RGB pictures in batch order: one per image, or several consecutive ones."""
        raise NotImplementedError

    def likeness(self) -> Sequence[float]:
        """Return the cosine of every image's prediction with the one last decoded, -1…1; empty if unknown."""
        return ()

    def nearness(self) -> Sequence[Mapping[str, float]]:
        """Return the probe's nearness per image and category: from 1 on a query is needed; empty without a probe."""
        return ()


@dataclass(frozen=True, slots=True)
class Pictures(View):
    """A step whose pictures already exist.

    Attributes:
        shown: RGB, one per image.
        similarities: cosine with the last decoded prediction; empty if the host did not measure it.
    """

    shown: Sequence[Image]
    similarities: Sequence[float] = ()

    def pictures(self) -> Sequence[Image]:
        """Return the pictures."""
        return self.shown

    def likeness(self) -> Sequence[float]:
        """Return each prediction's similarity to the one last decoded, as the host measured it."""
        return self.similarities


class Holder(Protocol):
    """Holds a host's negatives until its next step."""

    def hold(self, negatives: Sequence[Negative | None]) -> None:
        """Steer each image by its negative from the next step on; None stops steering it."""
