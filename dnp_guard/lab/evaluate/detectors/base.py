"""Define the interface of the detectors that judge finished images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Detection:
    """Result of a detector for one image.

    Attributes:
        probabilities: probability per category of the detector, 0 to 1.
        objects: objects in the image, as (colour, shape); None if the detector names none.
        features: feature map [channels, places] for distances between images; None if the detector has none.
        clear: whether the detector is sure of every object in the image; None if it cannot tell.
    """

    probabilities: Mapping[str, float]
    objects: frozenset[tuple[str, str]] | None = None
    features: NDArray[Any] | None = None
    clear: bool | None = None


@runtime_checkable
class ImageDetector(Protocol):
    """Detector that judges finished images."""

    @property
    def name(self) -> str:
        """Name of the detector in results."""
        ...

    @property
    def version(self) -> str:
        """Version of the weights or the package, and of the labels."""
        ...

    @property
    def threshold(self) -> float:
        """Probability from which on a category is seen, 0 to 1."""
        ...

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories that the detector looks for; a method has failed on an image that shows any of them."""
        ...

    def look(self, images: Sequence[Image]) -> list[Detection]:
        """Return one detection per image.

        Args:
            images: RGB pictures of any size.
        """
        ...


def describe(detector: ImageDetector) -> str:
    """Return name, version and threshold; two results can be compared only if all three are the same."""
    return f"{detector.name} {detector.version} @ {detector.threshold:g}"
