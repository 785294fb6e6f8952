"""Decide when to look at a run, which look it owes at its end, and why looks were missed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Session

_TRIES = 3
"""Number of unanswered looks in a row that end a run whose images would be withheld anyway."""


class Looks:
    """The looks at one attempt of a run.

    Args:
        steps: number of steps over all passes that the service knows of; None if unknown.

    Attributes:
        missed: whether the last look was unanswered, so that the next step is looked at.
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
        """Note a step, counted over all passes, and return whether a look is due at it."""
        self._before, self._now = self._now, progress
        beyond = self._steps is not None and step >= self._steps  # the service takes no look there
        if step <= self._asked or beyond:
            return False
        if self.missed:
            return True
        if session.due is not None:
            return any(self._asked < due <= step for due in session.due)
        return any(self._progress < share <= progress for share in session.due_progress)

    def owed(self, session: Session) -> bool:
        """Return whether the run ended before its last due step, or at an unanswered look."""
        if session.due is not None:
            return self.missed or any(due > self._asked for due in session.due)
        return self.missed or any(share > self._progress for share in session.due_progress)

    @property
    def in_vain(self) -> bool:
        """Whether so many looks in a row got no answer that the run need not go on if its images are withheld."""
        return self._silent >= _TRIES

    def begins(self, step: int, progress: float) -> None:
        """Note the begin of a look."""
        self._asked, self._progress = step, progress

    def answered(self, *, answered: bool) -> None:
        """Note the service's answer; ``answered`` is false if its model gave none."""
        self.missed, self._failed, self._silent = not answered, False, 0

    def failed(self, *, silent: bool) -> None:
        """Note a failed look; ``silent`` is true if the service did not answer, and false if the host failed."""
        self.missed = self._failed = True
        self._silent += silent

    def last(self, step: int, *, known: bool) -> int:
        """Return the step of the look after the run's end.

        Args:
            step: the number of executed steps, or the last step.
            known: whether the service knows of runs that end early; otherwise the look takes the run's last step.
        """
        return step if self._steps is None else (min if known else max)(step, self._steps)

    def beside(self, session: Session, *, ended: bool) -> dict[str, Any]:
        """Return the fields beside a look that explain missing looks at earlier due steps."""
        since = None if session.due is not None else self._now if ended else self._before
        reasons = {"since": since, "failed": self._failed or None, "ended": ended or None}
        return {key: value for key, value in reasons.items() if value is not None}


def closes(on_failure: str, *, answered: bool) -> bool:
    """Return whether a failure withholds the image, if no later look made up for it.

    Args:
        on_failure: the policy's choice; ``last`` lets the last answered look stand, which cannot have blocked.
        answered: whether any look was answered.
    """
    return on_failure != "open" and not (on_failure == "last" and answered)


def interrupted(error: Exception) -> bool:
    """Return whether an error is ComfyUI's way to end a workflow that its user has stopped."""
    return type(error).__name__ == "InterruptProcessingException"
