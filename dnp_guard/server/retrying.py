"""A second chance over the protocol: what becomes of a session whose host is to draw images again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError
from dnp_guard.generation.again import NO_TIME
from dnp_guard.hosts.withheld import blank
from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image

    from dnp_guard.generation.driver import Driver
    from dnp_guard.server.sessions import Stored


def of_batch(live: Driver, drawn: Sequence[Image]) -> list[Image]:
    """A picture for every image of the batch: a blank one for those that are not drawn again, which nobody looks at."""
    own = dict(zip(live.session.state.drawn, drawn, strict=True))
    return [own.get(index) or blank((1, 1)) for index in range(len(live.session.state.images))]


def looked(live: Driver, drawn: Sequence[Image], missing: str) -> tuple[int, ...]:
    """Make the final look at an attempt; settle the session where no other follows.

    Args:
        live: the session's driver.
        drawn: the finished images of the attempt.
        missing: which due query the host never put.

    Returns:
        The images to draw again; none where it is over.
    """
    further = live.session.state.drawing is not None
    shown = of_batch(live, drawn)
    if not in_time(live):
        live.leave(NO_TIME)
        return ()
    if live.look(lambda: shown, missing=missing) and (again := live.again()):
        return again
    live.settle(aborted=bool(missing) and not further)  # what the first attempt showed of the others stands
    return ()


def in_time(live: Driver) -> bool:
    """Whether the attempt that runs may go on, as far as the policy limits the time of a request."""
    try:
        live.check_time()
    except DnpGuardError:
        return False
    return True


def check_awaited(kept: Stored) -> None:
    """See that a session waits for its host to draw images again.

    Raises:
        Refusal: it does not.
    """
    if kept.status != "open" or not kept.final:
        raise Refusal("over", "None of its images is to be drawn again, or they are already.")
