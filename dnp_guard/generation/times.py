"""How long a request takes, attempt by attempt."""

from __future__ import annotations

from time import monotonic, time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dnp_guard.policy.model.ends import Retries


class Times:
    """How long a request and its attempts take.

    Args:
        retries: of the policy.
        began: when the request and its latest attempt began, in seconds since 1970; another process may have said so.
    """

    def __init__(self, retries: Retries | None, began: tuple[float, float]) -> None:
        now = time()
        self._began, self._attempt = (monotonic() - max(0.0, now - at) for at in began)
        within = retries.within_ms if retries is not None else None
        self._within_ms = float("inf") if within is None else within

    @property
    def took_ms(self) -> float:
        """How long the attempt that runs, or ran last, has taken so far."""
        return (monotonic() - self._attempt) * 1000

    @property
    def over(self) -> bool:
        """Whether the request takes longer than it may."""
        return (monotonic() - self._began) * 1000 > self._within_ms

    @property
    def for_another(self) -> bool:
        """Whether another attempt as long as the last would be over in time."""
        return (monotonic() - self._began) * 1000 + self.took_ms <= self._within_ms
