"""Sessions in which the host generates some images again, because the guard rejected the first attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.hosts.withheld import blank
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.server.sessions import Stored


def of_batch(live: Driver, drawn: Sequence[Image]) -> list[Image]:
    """Return one picture per image of the batch; an image that is not generated again gets a blank one.

    Args:
        live: driver of the session, which ignores the blank pictures.
        drawn: the pictures of the images that are generated again, in the order of the batch.
    """
    own = dict(zip(live.session.state.drawn, drawn, strict=True))
    return [own.get(index) or blank((1, 1)) for index in range(len(live.session.state.images))]


def check_awaited(stored: Stored) -> None:
    """Check that a session waits for its host to generate images again.

    Raises:
        Refusal: the session is over, or its images have no verdicts yet.
    """
    if stored.status != "open" or not stored.final:
        raise Refusal("over", "None of its images waits to be drawn again.")
