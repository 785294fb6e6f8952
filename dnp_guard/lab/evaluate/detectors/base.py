"""The contract every evaluation detector keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector sees in one image.

    Attributes:
        probabilities: of each of its categories, 0 to 1.
        objects: the wanted things that are there, as (colour, shape); None where it cannot tell.
        clear: whether it names every thing that it sees with confidence; None where it cannot tell.
        features: a map [channels, places] for distances between images; None where it has none.
    """

    probabilities: Mapping[str, float]
    objects: frozenset[tuple[str, str]] | None = None
    features: NDArray[Any] | None = None
    clear: bool | None = None


@runtime_checkable
class ImageDetector(Protocol):
    """Looks at finished images."""

    @property
    def name(self) -> str:
        """Return the name of this detector, as results show it."""
        ...

    @property
    def version(self) -> str:
        """Of its weights or its package, and of its labels."""
        ...

    @property
    def threshold(self) -> float:
        """At or over it, a category is seen."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """Every category whose presence counts as a failure."""
        ...

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """One detection an image.

        Args:
            images: RGB pictures of any size.
        """
        ...


def describe(detector: ImageDetector) -> str:
    """Name, version and threshold: what a result says, and what has to be the same for two results to be compared."""
    return f"{detector.name} {detector.version} @ {detector.threshold:g}"
