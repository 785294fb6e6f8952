"""What all requests that are worked on now hold together, bounded so that many at once cost no more than a few."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Flight:
    """Counts what requests hold, such as pixels, and refuses what is too much at once.

    Args:
        most: held at once by all requests.
        what: is held, as the refusal says.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._held = 0
        self._lock = Lock()

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Yield what one request takes more by; it gives everything back at its end."""
        held = 0

        def take(more: int) -> None:
            nonlocal held
            with self._lock:
                if self._held + more > self._most:
                    detail = f"{self._most} {self._what} of all requests are held at once; send it again."
                    raise Refusal("busy", detail, wait=1)
                self._held += more
            held += more

        try:
            yield take
        finally:
            with self._lock:
                self._held -= held
