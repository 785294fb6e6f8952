"""Retry images on a host that can draw them again: query the result, draw again, merge, and settle the outcomes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from dnp_guard.errors import DnpGuardError
from dnp_guard.generation.second_chance import NO_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.types import Outcome

ResultT = TypeVar("ResultT")


class Redraws(Protocol[ResultT]):
    """Interface of a host that can draw the images of a generation again."""

    def pictures(self, result: ResultT, /) -> Sequence[Image]:
        """Return the finished images of a result, RGB, in the order of the batch."""

    def draw(self, images: tuple[int, ...], /) -> ResultT:
        """Draw the batch again from the same seed, steered from the first step on by the negatives in force.

        Args:
            images: indices of the images to replace; the others are drawn too, but without steering.
        """

    def merged(self, result: ResultT, drawn: ResultT, images: tuple[int, ...], /) -> ResultT:
        """Return the earlier result with the given images replaced by those of the newly drawn result."""


def finished(driver: Driver, result: ResultT, redraws: Redraws[ResultT]) -> tuple[ResultT, tuple[Outcome, ...]]:
    """Query the images of a result, retry those whose decision is ``retry``, and settle every outcome.

    Args:
        driver: driver of the generation.
        result: result of the first attempt.
        redraws: the host, which shows, draws and merges results.

    Returns:
        The result, with the images of later attempts in it, and the outcome of every image.
    """
    _, images = attempted(driver, lambda: redraws.pictures(result))
    while images:
        try:
            drawn = redraws.draw(images)
            shown = redraws.pictures(drawn)
        except Exception as error:  # noqa: BLE001 (the earlier attempt is settled instead)
            driver.give_up(error)
            break
        stands, further = attempted(driver, lambda shown=shown: shown)  # type: ignore[misc]  # called at once
        if stands:
            result = redraws.merged(result, drawn, images)
        images = further
    return result, driver.outcomes


def attempted(
    driver: Driver, pictures: Callable[[], Sequence[Image]], *, missing: str = ""
) -> tuple[bool, tuple[int, ...]]:
    """Query the finished images of an attempt, and then begin a retry or settle every outcome.

    Args:
        driver: driver of the generation.
        pictures: returns the finished images, RGB, in the order of the batch.
        missing: description of a due query that the host left out; empty if there is none.

    Returns:
        Whether to use the images of this attempt (if not, deliver those of the attempt before), and the indices of the
        images to draw again; empty if the generation is over.
    """
    further = driver.session.state.drawing is not None
    if not driver.in_time:
        driver.give_up(NO_TIME)
        return False, ()
    stands = driver.look(pictures, missing=missing)
    if stands and (images := driver.again()):
        return True, images
    driver.settle(aborted=bool(missing) and not further)
    return stands, ()


def check_time(driver: Driver) -> None:
    """Check that a running retry has time left.

    Raises:
        DnpGuardError: the request has taken longer than ``retries.within_ms`` of the policy.
    """
    if not driver.in_time:
        raise DnpGuardError(NO_TIME, hint="Raise retries.within_ms, or leave it out.")
