"""Have a host draw again what the policy gives a second chance, and keep the time of it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.policy.model.ends import Retries
    from dnp_guard.types import Outcome

ResultT = TypeVar("ResultT")


class Redraws(Protocol[ResultT]):
    """A host that can draw again."""

    def pictures(self, result: ResultT, /) -> Sequence[Image]:
        """The finished images of a result, RGB, in the order of the batch."""

    def draw(self, images: tuple[int, ...], /) -> ResultT:
        """Draw again from the same seed; what is held is in force from the first step on.

        Args:
            images: those to make again; the others are drawn too, and not steered.
        """

    def merged(self, result: ResultT, drawn: ResultT, images: tuple[int, ...], /) -> ResultT:
        """A result with the images of another in it."""


def finished(driver: Driver, result: ResultT, redraws: Redraws[ResultT]) -> tuple[ResultT, tuple[Outcome, ...]]:
    """Look at a result, have drawn again what the policy gives a second chance, and settle every outcome.

    Args:
        driver: of the generation.
        result: of the first attempt.
        redraws: shows results, draws again and puts results together.

    Returns:
        The result, with the images of later attempts in it, and the outcome of each image.
    """
    driver.look(lambda: redraws.pictures(result))
    while images := driver.again():
        try:
            drawn = redraws.draw(images)
            driver.check_time()
            shown = redraws.pictures(drawn)
        except Exception as error:  # noqa: BLE001 (what was drawn before is settled in its place)
            driver.retry_failed(error)
            break
        if not driver.look(lambda shown=shown: shown):  # type: ignore[misc]  # it is called at once
            break
        result = redraws.merged(result, drawn, images)
    return result, driver.settle()


class Times:
    """How long a request and its attempts take.

    Args:
        retries: of the policy.
    """

    def __init__(self, retries: Retries | None) -> None:
        self._began = self._attempt = monotonic()
        within = retries.within_ms if retries is not None else None
        self._within_ms = float("inf") if within is None else within

    def again(self) -> None:
        """Note that another attempt begins."""
        self._attempt = monotonic()

    @property
    def took_ms(self) -> float:
        """How long the attempt that runs, or ran last, has taken so far."""
        return (monotonic() - self._attempt) * 1000

    @property
    def over(self) -> bool:
        """Whether the request takes longer than it may."""
        return (monotonic() - self._began) * 1000 > self._within_ms

    @property
    def for_another(self) -> bool:
        """Whether another attempt as long as the last would be over in time."""
        return (monotonic() - self._began) * 1000 + self.took_ms <= self._within_ms
