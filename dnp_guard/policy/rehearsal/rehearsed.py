"""What becomes of one image when the answers of its looks are known. Pure: the judge and the failure rules decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.generation import failmode, judge
from dnp_guard.policy.model.questions import allowed_questions, questions
from dnp_guard.types import Outcome, Question

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, Finding

Answer = Callable[[Sequence[Question]], Sequence[float]]
"""Gives the probability of yes for each question about one look; None in its place is a look without an answer."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What the judge said of one image, look by look, and what became of it.

    Attributes:
        decisions: of the looks while the image is made; None for a missed one.
        final: of the final look; None where there is none, or it is missed.
        outcome: of the image.
    """

    decisions: tuple[Decision | None, ...]
    final: Decision | None
    outcome: Outcome

    @property
    def last(self) -> Decision | None:
        """What the end is decided by: the final look, or the last answered one."""
        return self.final or next((each for each in reversed(self.decisions) if each is not None), None)


@dataclass(frozen=True, slots=True)
class RecordedQuery:
    """When a recorded look was made, and what it asked about.

    Attributes:
        progress: the part of the run that was done; None where it is not known.
        asked: ids of the categories asked about; None for all.
    """

    progress: float | None
    asked: frozenset[str] | None = None


def answers(terms: Mapping[str, float]) -> Answer:
    """Answers by term or allowed case; 0 for what is not given."""
    return lambda asked: [terms.get(question.term, 0.0) for question in asked]


def run(
    policy: Policy, looks: Sequence[Answer | None], final: Answer | None, queries: Sequence[RecordedQuery] | None = None
) -> Rehearsed:
    """Take one image through its looks.

    Args:
        policy: the policy in force.
        looks: in order; None for one that is missed.
        final: of the finished image; None where it is missed. Not looked at where the policy has no final look.
        queries: of the looks; where they are not given, they are at the policy's steps.
    """
    history, missed, steered = judge.History(), False, False
    decisions: list[Decision | None] = []
    for number, look in enumerate(looks):
        missed = look is None
        if look is None:
            decisions.append(None)
            continue
        query = queries[number] if queries is not None else RecordedQuery(_progress(policy, number))
        seen = _seen(policy, look, final=False, query=query)
        decision, history = judge.judge(policy, history, *seen, progress=query.progress)
        steered = steered or decision.negative is not None
        decisions.append(decision)
    at_the_end = None
    if policy.queries.final:
        missed = final is None
        if final is not None:
            at_the_end = judge.judge_final(policy, *_seen(policy, final, final=True))
    course = Rehearsed(tuple(decisions), at_the_end, Outcome.CLEAN)
    outcome = failmode.resolve(
        policy.on_failure,
        judge.settle(course.last, history, final=at_the_end is not None, steered=steered),
        missed=missed,
        answered=course.last is not None,
    )
    if policy.mode == "shadow":
        outcome = Outcome.CLEAN if course.last is not None else Outcome.UNASKED
    return Rehearsed(course.decisions, course.final, outcome)


def _progress(policy: Policy, look: int) -> float | None:
    """How far the run has come at the policy's nth step; not known past the last."""
    steps, of = policy.queries.steps, policy.queries.of
    return steps[look] / (of or 1) if look < len(steps) else None


def _seen(
    policy: Policy, look: Answer, *, final: bool, query: RecordedQuery = RecordedQuery(None)
) -> tuple[tuple[Finding, ...], Mapping[str, float], tuple[Finding, ...]]:
    asked = [each for each in questions(policy) if query.asked is None or each.category in query.asked]
    found, probabilities = judge.find(policy, asked, look(asked), final=final, progress=query.progress)
    categories = dict.fromkeys(finding.category for finding in found)
    cases = [question for category in categories for question in allowed_questions(policy, category)]
    return found, probabilities, judge.waive(policy, found, cases, [look(cases)])
