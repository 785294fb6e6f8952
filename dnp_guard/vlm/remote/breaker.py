"""A circuit breaker as a value: it stops calls to an endpoint that keeps failing, and tries it again now and then.

Closed, it admits every call. After several failures in a row it opens and refuses all calls. After a pause it is half
open: it admits one call as a probe, whose success closes it and whose failure opens it for twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """The health of one endpoint. Times are seconds of a monotonic clock.

    Attributes:
        threshold: failures in a row that open it.
        pause: how long it stays open the first time.
        longest: longest time that it stays open.
        failures: failures in a row so far.
        retry_at: when it becomes half open; None while it is closed.
        probing: time until which a running probe blocks others; after it, another may start, in case the first one
            never came back. None if there is no probe.
        failed_at: time of the last failure.
    """

    threshold: int = 3
    pause: float = 2.0
    longest: float = 60.0
    failures: int = 0
    retry_at: float | None = None
    probing: float | None = None
    failed_at: float | None = None

    def state(self, now: float) -> State:
        """Return the state at a time."""
        if self.retry_at is None:
            return "closed"
        return "half-open" if now >= self.retry_at else "open"

    def admits(self, now: float) -> bool:
        """Return whether a call may be made."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and (self.probing is None or now >= self.probing))

    def begun(self, now: float) -> Breaker:
        """Return the breaker after a call was admitted; if half open, that call is the probe."""
        return self if self.state(now) == "closed" else replace(self, probing=now + self.longest)

    def succeeded(self) -> Breaker:
        """Return the breaker after a successful call: closed, without failures."""
        return replace(self, failures=0, retry_at=None, probing=None)

    def failed(self, now: float, *, began: float | None = None, wait: float = 0.0) -> Breaker:
        """Return the breaker after a failed call.

        Args:
            now: the time.
            began: when the failed call began. Concurrent calls that fail together are one failure.
            wait: how long the endpoint asked to be left alone, as with ``Retry-After``.
        """
        if began is not None and self.failed_at is not None and began <= self.failed_at and not wait:
            return self
        failures = self.failures + 1
        pause = 0.0
        if failures >= self.threshold:
            pause = min(self.longest, self.pause * 2 ** min(32, failures - self.threshold))
        pause = max(pause, min(wait, self.longest))
        return replace(self, failures=failures, retry_at=now + pause if pause else None, probing=None, failed_at=now)

    def released(self) -> Breaker:
        """Return the breaker after a cancelled call, which says nothing about the endpoint's health."""
        return replace(self, probing=None)
