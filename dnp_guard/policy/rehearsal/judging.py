"""Decide about one image from given answers, by the same rules as in a generation. Pure."""

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
"""Returns the probability of yes per question of one query; None in its place is a query without an answer."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """The decisions about one image, and its outcome.

    Attributes:
        decisions: decisions after the queries during denoising; None for a missed query, one without an answer.
        final: decision after the query of the finished image; None if that is missed or the policy has none.
        outcome: outcome of the image.
    """

    decisions: tuple[Decision | None, ...]
    final: Decision | None
    outcome: Outcome

    @property
    def last(self) -> Decision | None:
        """The decision that determines the outcome: about the finished image, or else after the last answered query."""
        return self.final or next((decision for decision in reversed(self.decisions) if decision is not None), None)


@dataclass(frozen=True, slots=True)
class RecordedQuery:
    """The time and the categories of a recorded query.

    Attributes:
        progress: fraction of the run that was done; None if unknown.
        asked: ids of the queried categories; None for all.
    """

    progress: float | None
    asked: frozenset[str] | None = None


def answers(terms: Mapping[str, float]) -> Answer:
    """Return a function that answers questions from probabilities by term or allowed case; 0 for an omitted one."""
    return lambda asked: [terms.get(question.term, 0.0) for question in asked]


def run(
    policy: Policy, looks: Sequence[Answer | None], final: Answer | None, queries: Sequence[RecordedQuery] | None = None
) -> Rehearsed:
    """Decide about one image after every query and at the end, as the guard does during a generation.

    Args:
        policy: the policy in force.
        looks: answers to the queries, in order; None for a missed query.
        final: answer about the finished image; None if missed. Ignored if the policy does not query finished images.
        queries: times and categories of the queries; by default, the policy's steps and all categories.
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
    """Return the fraction of the run at the query with this index; None past the policy's last query step."""
    steps, of = policy.queries.steps, policy.queries.of
    return steps[look] / (of or 1) if look < len(steps) else None


def _seen(
    policy: Policy, look: Answer, *, final: bool, query: RecordedQuery = RecordedQuery(None)
) -> tuple[tuple[Finding, ...], Mapping[str, float], tuple[Finding, ...]]:
    asked = [question for question in questions(policy) if query.asked is None or question.category in query.asked]
    findings, probabilities = judge.find(policy, asked, look(asked), final=final, progress=query.progress)
    categories = dict.fromkeys(finding.category for finding in findings)
    cases = [question for category in categories for question in allowed_questions(policy, category)]
    return findings, probabilities, judge.waive(policy, findings, cases, [look(cases)])
