"""Limit the memory that all requests in progress hold together, however many there are."""

from __future__ import annotations

from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING

from dnp_guard.server.problems import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Flight:
    """Counts a resource that requests hold, such as pixels, and refuses a request that would exceed the limit.

    Args:
        most: most that all requests may hold at once.
        what: name of the resource, for the error message.
    """

    def __init__(self, most: int, what: str) -> None:
        self._most, self._what = most, what
        self._held = 0
        self._lock = Lock()

    @contextmanager
    def request(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that reserves a further amount for one request; release all of it when the request ends."""
        held = 0

        def take(more: int) -> None:
            nonlocal held
            with self._lock:
                if self._held + more > self._most:
                    detail = f"All requests together may hold {self._most} {self._what}; send this one again."
                    raise Refusal("busy", detail, wait=1)
                self._held += more
            held += more

        try:
            yield take
        finally:
            with self._lock:
                self._held -= held
