"""Decide at which steps of a run its predicted images are shown to the service, and explain the steps that were missed.

A look shows the images of one step to the service. The policy makes looks due at some steps; the session lists them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Session

_TRIES = 3
"""Number of consecutive looks without an answer after which a run ends whose images would be withheld anyway."""


class Looks:
    """The state of the looks at one attempt to generate a batch.

    Args:
        steps: number of steps over all passes, as the service was told; None if unknown.

    Attributes:
        missed: whether the last look got no answer, so that the next step is due.
    """

    def __init__(self, steps: int | None = None) -> None:
        self.missed = False
        self._silent = 0
        self._failed = False
        self._steps = steps
        self._asked = -1
        self._progress = -1.0
        self._before: float | None = None
        self._now: float | None = None

    def due(self, session: Session, step: int, progress: float) -> bool:
        """Note a step, counted over all passes, and return whether to show its images to the service."""
        self._before, self._now = self._now, progress
        beyond = self._steps is not None and step >= self._steps  # the service refuses looks at such steps
        if step <= self._asked or beyond:
            return False
        if self.missed:
            return True
        if session.due is not None:
            return any(self._asked < due <= step for due in session.due)
        return any(self._progress < share <= progress for share in session.due_progress)

    def owed(self, session: Session) -> bool:
        """Return whether a query must follow the last step: a due step was not reached, or the last query failed."""
        if session.due is not None:
            return self.missed or any(due > self._asked for due in session.due)
        return self.missed or any(share > self._progress for share in session.due_progress)

    @property
    def in_vain(self) -> bool:
        """Whether so many consecutive looks got no answer that a run whose images will be withheld may stop early."""
        return self._silent >= _TRIES

    def begins(self, step: int, progress: float) -> None:
        """Note that a query about the images begins at this step and this share of the run."""
        self._asked, self._progress = step, progress

    def answered(self, *, answered: bool) -> None:
        """Note that the service answered; ``answered`` tells whether its model did too."""
        self.missed, self._failed, self._silent = not answered, False, 0

    def failed(self, *, silent: bool) -> None:
        """Note a failed query; ``silent`` is true if the request to the service failed, false if the host failed."""
        self.missed = self._failed = True
        self._silent += silent

    def last(self, step: int, *, known: bool) -> int:
        """Return the step number to send with the look after the run's end.

        Args:
            step: the number of executed steps, or the last step.
            known: whether the service knows the field ``ended`` for runs that end early; if not, the look claims at
                least the planned number of steps.
        """
        return step if self._steps is None else (min if known else max)(step, self._steps)

    def beside(self, session: Session, *, ended: bool) -> dict[str, Any]:
        """Return the fields of a query, ``since``, ``failed`` and ``ended``, that explain due steps without a look."""
        since = None if session.due is not None else self._now if ended else self._before
        reasons = {"since": since, "failed": self._failed or None, "ended": ended or None}
        return {key: value for key, value in reasons.items() if value is not None}


def closes(on_failure: str, *, answered: bool) -> bool:
    """Return whether a failure of the guard withholds the image, unless a later look succeeds.

    Args:
        on_failure: the policy's choice: ``closed`` withholds, ``open`` lets pass, and ``last`` lets pass if a look
            was answered before.
        answered: whether any look was answered.
    """
    return on_failure != "open" and not (on_failure == "last" and answered)


def interrupted(error: Exception) -> bool:
    """Return whether an error is the one by which ComfyUI ends a workflow that its user has stopped."""
    return type(error).__name__ == "InterruptProcessingException"
