"""What a host gives a driver: a view of each step, and a place where negatives are held until the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.types import Negative


class View:
    """What a step shows, worked out only when it is asked for."""

    def pictures(self) -> Sequence[Image]:
        """Decode the prediction: RGB, one picture per image of the batch, or as many of each, in turn."""
        raise NotImplementedError

    def likeness(self) -> Sequence[float]:
        """Cosine of each image's prediction with the one that was last decoded, -1…1; none where unknown."""
        return ()

    def nearness(self) -> Sequence[Mapping[str, float]]:
        """How near each image comes to each category having to be asked about, by the probe; none without one."""
        return ()


@dataclass(frozen=True, slots=True)
class Pictures(View):
    """A step whose pictures are at hand.

    Attributes:
        shown: RGB, one per image.
        similarities: cosine with the last decoded prediction; none where the host did not measure it.
    """

    shown: Sequence[Image]
    similarities: Sequence[float] = ()

    def pictures(self) -> Sequence[Image]:
        """The pictures."""
        return self.shown

    def likeness(self) -> Sequence[float]:
        """As the host measured it."""
        return self.similarities


class Holder(Protocol):
    """Where a host holds negatives until its next step."""

    def hold(self, negatives: Sequence[Negative | None]) -> None:
        """Steer each image by its negative, or no more, from the next step on."""
