"""Sessions whose host is to draw some images again."""

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
    """Fill up a batch: images that are not drawn again get a blank picture, which nobody looks at."""
    own = dict(zip(live.session.state.drawn, drawn, strict=True))
    return [own.get(index) or blank((1, 1)) for index in range(len(live.session.state.images))]


def check_awaited(stored: Stored) -> None:
    """Check that a session waits for its host to draw images again.

    Raises:
        Refusal: it does not wait for that.
    """
    if stored.status != "open" or not stored.final:
        raise Refusal("over", "None of its images waits to be drawn again.")
