"""A circuit breaker as a value: it stops asking an endpoint that keeps failing, and tries it again from time to time.

Closed, it lets every call through. After some failures in a row it opens and refuses all. When its pause is over it is
half open: it lets one call through as a probe, whose success closes it and whose failure opens it for twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Breaker:
    """The health of one endpoint. Times are seconds of any clock that does not go back.

    Attributes:
        threshold: failures in a row that open it.
        pause: how long it stays open the first time.
        longest: how long it stays open at most.
        failures: in a row, up to now.
        retry_at: when it is half open; None while it is closed.
        probing: until when a probe is waited for; another may start then, if the first never came back.
        failed_at: when the last failure was.
    """

    threshold: int = 3
    pause: float = 2.0
    longest: float = 60.0
    failures: int = 0
    retry_at: float | None = None
    probing: float | None = None
    failed_at: float | None = None

    def state(self, now: float) -> State:
        """Which of the three it is in."""
        if self.retry_at is None:
            return "closed"
        return "half-open" if now >= self.retry_at else "open"

    def admits(self, now: float) -> bool:
        """Whether a call may be made."""
        state = self.state(now)
        return state == "closed" or (state == "half-open" and (self.probing is None or now >= self.probing))

    def begun(self, now: float) -> Breaker:
        """After a call was let through; half open, it is the probe."""
        return self if self.state(now) == "closed" else replace(self, probing=now + self.longest)

    def succeeded(self) -> Breaker:
        """After an answer."""
        return replace(self, failures=0, retry_at=None, probing=None)

    def failed(self, now: float, *, began: float | None = None, wait: float = 0.0) -> Breaker:
        """After a failure.

        Args:
            now: the time.
            began: when the failed call began. Calls made side by side that fail together are one failure.
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
        """After a call that says nothing about the endpoint's health: it was called off."""
        return replace(self, probing=None)
