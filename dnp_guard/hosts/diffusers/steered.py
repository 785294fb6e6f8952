"""Interface of the running call for the code that steers its denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dnp_guard.steering.held import Held


class SteeredCall(Protocol):
    """The running call, as its injections need it.

    Attributes:
        held: the negatives in force.
    """

    held: Held

    def begins_step(self) -> bool:
        """Return whether the running evaluation begins a step and is not a sub-step of one."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Measure an evaluation of the guard; one inside the pipeline's batch cannot be measured separately."""

    def failed(self, error: Exception) -> None:
        """Note an evaluation that raised; the step goes on unsteered."""
