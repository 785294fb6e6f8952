"""The exceptions of this package. Every message says what is wrong and where; its hint says what to do."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.types import Report


class DnpGuardError(Exception):
    """The root of every error that this package raises on purpose.

    Attributes:
        message: description of the error and of its place.
        hint: advice on how to correct it; may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}\n{hint}" if hint else message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem at one place of a file, as ``--json`` prints it.

    Attributes:
        file: path of the file, as given.
        line: line, 1-based; 0 if there is none.
        column: column, 1-based; 0 if there is none.
        code: stable kebab-case name of the kind of problem.
        message: description of the problem.
        hint: advice on how to correct it; may be empty.
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
    """An invalid policy; ``problems`` contains all its problems, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class PluginError(DnpGuardError):
    """A plugin is unknown, not allowed, or does not fit the specifications of the hooks."""


class MissingExtra(DnpGuardError):
    """A feature needs an extra that is not installed; the hint is the command to install it."""


class AuditError(DnpGuardError):
    """An audit log cannot be written or read."""


class Unwritable(AuditError):
    """A record can never be stored, because it is too long for a line of the log or has no canonical JSON form."""


class RequestRefused(DnpGuardError):
    """A generation is refused before it starts, because of its request.

    Attributes:
        report: report of the refused generation; None if there is none.
    """

    def __init__(self, message: str, *, hint: str = "", report: Report | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class CannotSteer(DnpGuardError):
    """A target, such as a pipeline, or a call of it cannot be steered by a negative prompt.

    The guard raises this instead of silently doing nothing.

    Attributes:
        reason: why steering is impossible.
        hint: advice on how to make steering possible.
    """

    @property
    def reason(self) -> str:
        """The reason why the target or the call cannot be steered."""
        return self.message


class VlmError(DnpGuardError):
    """A query of the vision-language model was not answered.

    Attributes:
        reason: ``reason`` in ``dnp_guard_degraded_total`` and in the ``degraded`` record.
    """

    reason = "vlm_error"


class VlmTimeout(VlmError):
    """There was no answer within the policy's ``deadline_ms``."""

    reason = "vlm_timeout"


class VlmBusy(VlmError):
    """An earlier query that missed its deadline is still being computed."""

    reason = "vlm_busy"


class VlmBadAnswer(VlmError):
    """The backend gave a wrong number of answers, or an invalid probability."""

    reason = "vlm_bad_answer"


class VlmUnavailable(VlmError):
    """A backend cannot be built, for example because its spec is unknown or its folder has no weights."""

    reason = "vlm_unavailable"


class VlmCircuitOpen(VlmError):
    """Every endpoint of the backend has failed too often, so that none is called for a while."""

    reason = "vlm_circuit_open"


class VlmChanged(VlmError):
    """The server runs another model or revision than when the guard was created."""

    reason = "vlm_changed"


_OFFERED = 30
"""Largest number of valid names to list if none is similar."""


def nearest(name: str, valid: Sequence[str]) -> str | None:
    """Return the valid name most similar to a given one; None if none is similar."""
    folded = name.lower().replace("-", "_")
    by_folded = {candidate.lower().replace("-", "_"): candidate for candidate in valid}
    close = get_close_matches(folded[:100], list(by_folded), n=1)
    return by_folded[close[0]] if close else None


def did_you_mean(name: str, valid: Sequence[str], form: str = "`{}`") -> str:
    """Write a sentence that offers the most similar valid name, or lists the valid names if none is similar.

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
    """Return whether an error's class and the code that raised it are of this package, so that its text is trusted."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised = type(error).__module__ if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return all(module.partition(".")[0] == "dnp_guard" for module in (type(error).__module__, raised))
