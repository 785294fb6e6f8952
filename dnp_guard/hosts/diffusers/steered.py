"""The running call, as those see it that steer its denoiser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from dnp_guard.steering.held import Held


class SteeredCall(Protocol):
    """The running call, as its injection needs it.

    Attributes:
        held: the negatives in force.
    """

    held: Held

    def begins_step(self) -> bool:
        """Whether the evaluation that runs begins a step, and is no sub-step of one."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Measure an evaluation of the guard's own; one in the pipeline's batch cannot be told apart."""

    def failed(self, error: Exception) -> None:
        """Note an evaluation that raised; the step goes on unsteered."""
