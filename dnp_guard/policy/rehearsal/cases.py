"""Run the cases of a test file, and compare the results with the expectations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.policy.model.exceptions import with_exceptions
from dnp_guard.policy.read.testfile import MISSED
from dnp_guard.policy.rehearsal.judging import Rehearsed, answers, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.read.testfile import Case, Expect, Look, PolicyTests, Steering
    from dnp_guard.policy.rehearsal.judging import Answer
    from dnp_guard.types import Decision, Negative

    Viewer = Callable[[str, Path], Answer]
    """Queries the backend of a spec about an image file."""

TOLERANCE = 1e-6
"""Scales are equal if they differ by less."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A result that differs from the expectation."""

    what: str
    expected: object
    got: object

    def __str__(self) -> str:
        return f"{self.what}: expected {_shown(self.expected)}, got {_shown(self.got)}"


@dataclass(frozen=True, slots=True)
class Ran:
    """The result of running one case of a test file.

    Attributes:
        case: the case.
        line: line where the case begins.
        course: the decisions about the case's image.
        differences: differences from the expectation; empty if the case passed.
    """

    case: Case
    line: int
    course: Rehearsed
    differences: tuple[Difference, ...]

    @property
    def passed(self) -> bool:
        """Whether the case passed."""
        return not self.differences


def run_tests(tests: PolicyTests, view: Viewer) -> tuple[Ran, ...]:
    """Run every case of a test file.

    Args:
        tests: the test file.
        view: queries a backend about an image file; used only for a case with an image.
    """
    return tuple(_run(tests, case, line, view) for case, line in zip(tests.cases, tests.lines, strict=True))


def _run(tests: PolicyTests, case: Case, line: int, view: Viewer) -> Ran:
    policy = with_exceptions(tests.policy, case.tenant, case.at) if case.at is not None else tests.policy
    if case.image is not None and case.vlm is not None:
        from pathlib import Path  # noqa: PLC0415 (only a case with an image has a path)

        seen = view(case.vlm, Path(tests.file).parent / case.image)
        course = run(policy, [seen], seen)
    else:
        course = run(policy, [_answer(look) for look in case.looks], _answer(case.final or {}))
    return Ran(case, line, course, tuple(_differences(policy, course, case.expect)))


def _answer(look: Look) -> Answer | None:
    return None if look == MISSED else answers(look)


def _differences(policy: Policy, course: Rehearsed, expect: Expect) -> Iterable[Difference]:
    if expect.decision != course.outcome:
        yield Difference("decision", expect.decision, str(course.outcome))
    yield from _steering(course, expect, "", lambda decision: (decision.action, decision.negative))
    waived = {finding.category for decision in _answered(course) for finding in decision.waived}
    ordered = tuple(category.id for category in policy.categories if category.id in waived)
    if expect.waived is not None and set(expect.waived) != waived:
        yield Difference("waived", expect.waived, ordered)
    if expect.would is not None:
        yield from _steering(course, expect.would, "would.", _would)


def _steering(
    course: Rehearsed, expect: Steering, prefix: str, read: Callable[[Decision], tuple[Any, Negative | None]]
) -> Iterable[Difference]:
    negatives = [read(decision)[1] if decision else None for decision in course.decisions]
    words = tuple(negative.words if negative else () for negative in negatives)
    scale = max((negative.scale for negative in negatives if negative and negative.scale is not None), default=None)
    action = (read(course.last)[0] or "none") if course.last else "none"
    if expect.negatives is not None and expect.negatives != words:
        yield Difference(f"{prefix}negatives", expect.negatives, words)
    if expect.scale is not None and (scale is None or abs(scale - expect.scale) > TOLERANCE):
        yield Difference(f"{prefix}scale", expect.scale, scale)
    if expect.action is not None and expect.action != action:
        yield Difference(f"{prefix}action", expect.action, str(action))


def _would(decision: Decision) -> tuple[Any, Negative | None]:
    """Return the action and the negative that a decision would have if nothing were in shadow mode."""
    if decision.would_action is None and decision.would_negative is None:
        return decision.action, decision.negative
    return decision.would_action, decision.would_negative


def _answered(course: Rehearsed) -> list[Decision]:
    return [decision for decision in (*course.decisions, course.final) if decision is not None]


def as_json(ran: Ran) -> Mapping[str, object]:
    """Return the result of a case, as ``--json`` prints it."""
    return {
        "name": ran.case.name,
        "line": ran.line,
        "ok": ran.passed,
        "differences": [{"what": d.what, "expected": d.expected, "got": d.got} for d in ran.differences],
    }


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return "nothing" if value is None else str(value)
