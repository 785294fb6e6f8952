"""Interface of a guarded call for the code that steers its denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dnp_guard.steering.held import Held


class SteeredCall(Protocol):
    """The part of a guarded call that the steering of its denoiser uses.

    Attributes:
        held: the negatives in force.
    """

    held: Held

    def begins_step(self) -> bool:
        """Return whether the running evaluation begins a step and is not a sub-step of one."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Measure the time of an evaluation that the guard adds; do not use it for one inside the pipeline's batch."""

    def failed(self, error: Exception) -> None:
        """Record that steering an evaluation raised an error; the step goes on without steering."""
