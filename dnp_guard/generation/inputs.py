"""Judge the pictures that a request contains, such as an image to edit, and decide whether it may go on. Pure.

The pictures are judged like finished images. Their probabilities are also the baseline of a category with
``more_than_input``, which is found in a generated image only if its probability exceeds the baseline by at least that
number.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from dnp_guard.canonical import measured
from dnp_guard.errors import own
from dnp_guard.generation import events, failmode, fields, judge
from dnp_guard.types import Action, InputReport

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from dnp_guard.generation.plan import Plan
    from dnp_guard.generation.query import Answer
    from dnp_guard.generation.state import ImageState, State
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Finding

_REFUSED = {Action.BLUR, Action.RETRY, Action.BLOCK}


def taken(
    policy: Policy, state: State, of: Sequence[Collection[int] | None], plan: Plan, answer: Answer | Exception | None
) -> tuple[State, list[events.Event]]:
    """Apply the answer to the query about a request's own pictures; return the new state and the events.

    Args:
        policy: the policy in force.
        state: the state before.
        of: per picture, the indices of the images made from it; None for all images.
        plan: the query.
        answer: the answer, or the error if there is none; None if there was no picture to query.
    """
    happened: list[events.Event] = []
    decisions: dict[int, Decision] = {}
    latency = None
    if isinstance(answer, Exception):
        detail = str(answer) if own(answer) else type(answer).__name__
        happened += [events.Unanswered(len(plan.images)), events.Degraded(fields.reason(answer), None, detail)]
    elif answer is not None:
        latency = answer.latency_ms
        happened.append(events.Answered(answer))
        for row, index in enumerate(plan.images):
            findings = answer.found[row], answer.probabilities[row], answer.waived[row]
            decisions[index] = judge.judge_final(policy, *findings)
    failed = plan.images if isinstance(answer, Exception) else ()
    reports = tuple(_report(policy, decisions.get(index), failed=index in failed) for index in range(len(of)))
    for index, report in enumerate(reports):
        happened.append(events.InputSeen(index, report, None if report.decision is None else latency))
        if report.decision is None:
            happened.append(events.Degraded("input_unanswered", None, f"picture {index} of the request"))
    degraded = (*state.degraded, *(event.reason for event in happened if isinstance(event, events.Degraded)))
    state = replace(state, inputs=reports, images=_compared(state.images, reports, of), degraded=degraded)
    return replace(state, looking=state.looking and not state.turned_away), happened


def _report(policy: Policy, decision: Decision | None, *, failed: bool) -> InputReport:
    """Decide by one of its pictures whether a request goes on; ``failed``: the picture's query was not answered."""
    asked_to = policy.inputs is not None and policy.inputs.action is Action.BLOCK
    sensitive = frozenset(category.id for category in policy.categories if category.sensitive)
    if decision is None:
        enforced = any(not policy.shadow(category.id) for category in policy.categories)
        refuses = enforced and (asked_to or bool(sensitive))
        return InputReport(failmode.of_input(policy.on_failure, refuses=refuses, request_caused=not failed), None)
    shows = any(finding.category in sensitive for finding in decision.findings)
    return InputReport("block" if decision.action in _REFUSED and (asked_to or shows) else "pass", decision)


def _compared(
    images: Sequence[ImageState], reports: Sequence[InputReport], of: Sequence[Collection[int] | None]
) -> tuple[ImageState, ...]:
    """Set each image's baseline: P(category) in its input pictures, the lowest of several; 0 without an answer."""
    owned = list(zip(reports, of, strict=True))
    return tuple(
        replace(image, baseline=_least([report for report, owner in owned if owner is None or index in owner]))
        for index, image in enumerate(images)
    )


def _least(inputs: Sequence[InputReport]) -> Mapping[str, float]:
    seen = [report.decision.probabilities if report.decision is not None else {} for report in inputs]
    names = seen[0].keys() if seen else ()
    return MappingProxyType({name: min(probabilities.get(name, 0.0) for probabilities in seen) for name in names})


def seen(
    policy: Policy, image: ImageState, answer: Answer, row: int
) -> tuple[tuple[Finding, ...], Mapping[str, float], tuple[Finding, ...]]:
    """Read one image's part of an answer: its findings, P(category), and the waived findings.

    A category with ``more_than_input`` is found only if its probability exceeds the one in the request's own pictures
    by at least that number.
    """
    probabilities = answer.probabilities[row]
    findings = tuple(
        finding
        for finding in answer.found[row]
        if (rise := policy.category(finding.category).more_than_input) is None
        or measured(probabilities[finding.category] - image.baseline.get(finding.category, 0.0)) >= rise
    )
    return findings, probabilities, tuple(finding for finding in answer.waived[row] if finding in findings)
