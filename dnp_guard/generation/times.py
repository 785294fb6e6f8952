"""Measure how long a request takes, attempt by attempt."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.policy.model.ends import Retries


class Times:
    """Measures the time of a request and of its latest attempt.

    Args:
        retries: the policy's retry settings.
        began: when the request and its latest attempt began, in seconds since 1970, perhaps in another process.
    """

    def __init__(self, retries: Retries | None, began: tuple[float, float]) -> None:
        now = time()
        self._began, self._attempt = (monotonic() - max(0.0, now - at) for at in began)
        within = retries.within_ms if retries is not None else None
        self._within_ms = float("inf") if within is None else within

    @property
    def took_ms(self) -> float:
        """How long the running or last attempt has taken so far, in milliseconds."""
        return (monotonic() - self._attempt) * 1000

    @property
    def over(self) -> bool:
        """Whether the request has taken longer than the policy allows."""
        return (monotonic() - self._began) * 1000 > self._within_ms

    @property
    def for_another(self) -> bool:
        """Whether another attempt as long as the last would finish in time."""
        return (monotonic() - self._began) * 1000 + self.took_ms <= self._within_ms
