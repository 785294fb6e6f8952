"""The error tree. Every error says what was wrong, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.types import Report


class DnpGuardError(Exception):
    """The root of every error this package raises on purpose.

    Attributes:
        message: what was wrong, and where.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at one place of a file, as ``--json`` prints it.

    Attributes:
        file: the file's path as it was given.
        line: 1-based; 0 where there is no line.
        column: 1-based; 0 where there is no column.
        code: a stable kebab-case name of the kind of problem.
        message: what is wrong.
        hint: what to do.
    """

    file: str
    line: int
    column: int
    code: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" {self.hint}" if self.hint else ""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.message}{hint}"


class PolicyError(DnpGuardError):
    """A policy that does not check; ``problems`` holds all of them, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PluginError(DnpGuardError):
    """A plugin that is unknown, not allowed, or of the wrong shape."""


class MissingExtra(DnpGuardError):
    """What was asked for needs an extra that is not installed; the hint is the line to type."""


class AuditError(DnpGuardError):
    """An audit log that cannot be written or read."""


class Unwritable(AuditError):
    """A record that no log can take, now or later: too long for a line, or without a canonical form."""


class RequestRefused(DnpGuardError):
    """A generation refused before it starts, because of what was asked for.

    Attributes:
        report: what the record says of it.
    """

    def __init__(self, message: str, *, hint: str = "", report: Report | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class CannotSteer(DnpGuardError):
    """A target, or a call of it, in which no negative can take effect; never a silent no-op.

    Attributes:
        reason: why it cannot be steered.
        hint: the remedy.
    """

    @property
    def reason(self) -> str:
        """Why it cannot be steered."""
        return self.message


class VlmError(DnpGuardError):
    """A query that was not answered.

    Attributes:
        reason: the ``reason`` label of ``dnp_guard_degraded_total`` and of the ``degraded`` record.
    """

    reason = "vlm_error"


class VlmTimeout(VlmError):
    """No answer within the policy's ``deadline_ms``."""

    reason = "vlm_timeout"


class VlmBusy(VlmError):
    """An earlier question that outlived its deadline is still being computed."""

    reason = "vlm_busy"


class VlmBadAnswer(VlmError):
    """The wrong number of answers, or a probability that is not one."""

    reason = "vlm_bad_answer"


class VlmUnavailable(VlmError):
    """A backend that cannot be built: an unknown spec, a folder without weights."""

    reason = "vlm_unavailable"


class VlmCircuitOpen(VlmError):
    """Every endpoint of the backend failed too often and is left alone for a while."""

    reason = "vlm_circuit_open"


class VlmChanged(VlmError):
    """The server answers as another model, or another revision, than it did when the guard was made."""

    reason = "vlm_changed"


_OFFERED = 30
"""Valid names that are listed where none is near."""


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like a given one, if any is."""
    folded = name.lower().replace("-", "_")
    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in valid}
    close = get_close_matches(folded[:100], list(by_folded), n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, valid: Sequence[str], form: str = "`{}`") -> str:
    """A sentence that offers the nearest valid name, or all of them where none is near.

    >>> did_you_mean("treshold", ["threshold", "title"])
    'Did you mean `threshold`?'
    >>> did_you_mean("colour", ["id", "title"])
    'Valid here: `id`, `title`.'
    """
    if best := nearest(name, valid):
        return f"Did you mean {form.format(best)}?"
    shown = ", ".join(form.format(candidate) for candidate in valid[:_OFFERED])
    more = f" and {len(valid) - _OFFERED} more" if len(valid) > _OFFERED else ""
    return f"Valid here: {shown}{more}."


def own(error: BaseException) -> bool:
    """Whether an error is of this package's kinds and was raised by its code, so that it quotes no stranger unread."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised = type(error).__module__ if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return all(module.partition(".")[0] == "dnp_guard" for module in (type(error).__module__, raised))
