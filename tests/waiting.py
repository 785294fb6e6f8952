"""Wait for other threads and processes, by default for a minute at most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_S = 60.0
_BETWEEN_S = 0.002


def wait_until(predicate: Callable[[], object], seconds: float = LONGEST_S) -> None:
    """Wait until a predicate returns true, and fail the test if it does not do so in time."""
    ends = time.monotonic() + seconds
    while not predicate():
        assert time.monotonic() < ends, f"{predicate.__qualname__} did not hold within {seconds:g} s"
        time.sleep(_BETWEEN_S)
