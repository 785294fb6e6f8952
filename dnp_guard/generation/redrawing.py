"""Let a host draw images again that the policy gives a retry."""

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
    """A host that can draw images again."""

    def pictures(self, result: ResultT, /) -> Sequence[Image]:
        """Return the finished images of a result, RGB, in the order of the batch."""

    def draw(self, images: tuple[int, ...], /) -> ResultT:
        """Draw again from the same seed; the held negatives are in force from the first step on.

        Args:
            images: the images to make again; the others are drawn too, without steering.
        """

    def merged(self, result: ResultT, drawn: ResultT, images: tuple[int, ...], /) -> ResultT:
        """Copy the given images of a new result into a result."""


def finished(driver: Driver, result: ResultT, redraws: Redraws[ResultT]) -> tuple[ResultT, tuple[Outcome, ...]]:
    """Look at a result, retry the images that the policy gives a retry, and settle every outcome.

    Args:
        driver: driver of the generation.
        result: result of the first attempt.
        redraws: shows, draws and merges results.

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
    """Look at a finished attempt, and begin another or settle every outcome.

    Args:
        driver: driver of the generation.
        pictures: returns the finished images, RGB, in the order of the batch.
        missing: description of a due query that the host never put.

    Returns:
        Whether the attempt stands; if not, deliver the pictures of the one before. And the images to draw again; empty
        if the generation is over.
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
    """Check that a retry may go on.

    Raises:
        DnpGuardError: the request takes longer than the policy allows.
    """
    if not driver.in_time:
        raise DnpGuardError(NO_TIME, hint="Raise retries.within_ms, or leave it out.")
