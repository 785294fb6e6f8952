"""Have a host draw again what the policy gives a second chance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
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
