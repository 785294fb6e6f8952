"""Tell the code that computes an answer how long its caller waits for it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDS: ContextVar[float | None] = ContextVar("dnp_guard.vlm.deadline", default=None)

_MARGIN = 0.95
"""A backend that can be interrupted gives up shortly before the caller stops waiting, so that nothing keeps running."""


@contextmanager
def within(milliseconds: float | None) -> Iterator[None]:
    """Set the deadline, counted from now, that :func:`remaining` reads inside a ``with`` block; None for none."""
    ends = None if milliseconds is None else time.monotonic() + milliseconds / 1000 * _MARGIN
    token = _ENDS.set(ends)
    try:
        yield
    finally:
        _ENDS.reset(token)


def remaining(most: float) -> float:
    """Return the seconds left until the deadline, from 0 to ``most``; ``most`` if there is no deadline."""
    ends = _ENDS.get()
    return most if ends is None else min(most, max(0.0, ends - time.monotonic()))
