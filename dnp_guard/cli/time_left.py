"""How long a run still takes, by what it has taken so far."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class TimeLeft:
    """The pace of a run since it was started; what an earlier start has done takes part in nothing but the count.

    Args:
        sizes: of the batches, in images, in order.

    Attributes:
        total: images of the run.
        done: images that are done.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.total, self.done = sum(sizes), 0
        self._batches = 0
        self._begun: tuple[int, float] | None = None
        self._seconds = 0.0

    def hear(self, batches: int, now: float) -> None:
        """Hear that more batches are done; the first time, those that an earlier start has done.

        >>> pace = TimeLeft([4, 4, 4, 2])
        >>> pace.hear(2, 100.0)
        >>> pace.said()
        ''
        >>> pace.hear(1, 140.0)
        >>> pace.said()
        '0:00:20 left'
        """
        self._batches += batches
        self.done = sum(self._sizes[: self._batches])
        if self._begun is None:
            self._begun = self.done, now
        self._seconds = now - self._begun[1]

    def said(self) -> str:
        """The time that is left; empty before a batch is done by which to tell."""
        fresh = self.done - self._begun[0] if self._begun else 0
        if not fresh:
            return ""
        left = self._seconds / fresh * (self.total - self.done)
        return f"{timedelta(seconds=round(left))} left"
