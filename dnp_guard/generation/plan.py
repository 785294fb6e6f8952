"""Plan a query: its images, its questions, and the images that it skips. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.generation import pacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dnp_guard.generation.pacing import Reason
    from dnp_guard.generation.state import State
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Question, Step


@dataclass(frozen=True, slots=True)
class Plan:
    """A query to put: its images and its questions.

    Attributes:
        step: the step to query; None for the finished images.
        questions: the questions about every image.
        images: indices of the images to query; empty if all are skipped.
        skipped: by index of a skipped image, the reason and, if that is ``unlikely``, the latent probe's score divided
            by its threshold.
        before: the last step before this one whose query was answered; -1 for none.
    """

    step: Step | None
    questions: tuple[Question, ...]
    images: tuple[int, ...]
    skipped: Mapping[int, tuple[Reason, float | None]]
    before: int

    @property
    def categories(self) -> frozenset[str]:
        """Ids of the categories that the query asks about."""
        return frozenset(question.category for question in self.questions)


def plan(
    policy: Policy,
    questions: tuple[Question, ...],
    state: State,
    step: Step,
    likeness: Sequence[float] = (),
    nearness: Sequence[Mapping[str, float]] = (),
    levels: Sequence[float] = (),
) -> Plan:
    """Plan the query at a due step.

    Args:
        policy: the policy in force.
        questions: all questions of the policy.
        state: state of the session.
        step: the step.
        likeness: cosine similarity of each image's prediction to its last decoded one, -1…1; empty if unknown.
        nearness: the latent probe's score divided by its threshold, per image and category; 1 or more needs a query.
            Empty without a probe.
        levels: noise fraction at the start of each step of the run; empty if unknown.
    """
    due = _due(policy, questions, state.answered, step, levels)
    categories = frozenset(question.category for question in due)
    sensitive = any(policy.category(category).sensitive for category in categories)
    near = [] if sensitive else [max(row[category] for category in categories) for row in nearness]
    skipped: dict[int, tuple[Reason, float | None]] = {}
    for index in state.drawn:
        nearest = near[index] if near else None
        reason = _passed_over(policy, state, index, categories, step, likeness, nearest, sensitive=sensitive)
        if reason is not None:
            skipped[index] = (reason, nearest if reason == "unlikely" else None)
    images = tuple(index for index in state.drawn if index not in skipped)
    return Plan(step, due, images, skipped, state.answered)


def _due(
    policy: Policy, questions: tuple[Question, ...], answered: int, step: Step, levels: Sequence[float]
) -> tuple[Question, ...]:
    """Return the questions of the categories that are due; all if none is, or if the run's length is unknown."""
    at, total = pacing.place(step)
    if total is None:
        return questions
    steps = pacing.due_by_category(policy, total, levels)
    due = tuple(question for question in questions if pacing.is_due(steps[question.category], at, answered))
    return due or questions


def _passed_over(
    policy: Policy,
    state: State,
    index: int,
    categories: frozenset[str],
    step: Step,
    likeness: Sequence[float],
    nearest: float | None,
    *,
    sensitive: bool,
) -> Reason | None:
    """Return why a query that is due skips one image; None if the image is queried."""
    image = state.images[index]
    if state.in_flight:
        return "in_flight"
    if reason := pacing.spent(policy.queries, image.pace):
        return reason
    if state.missed:
        return None
    if pacing.place(step)[0] < image.pace.until and not sensitive:
        return "quiet"
    gate = policy.queries.skip_similar
    if gate is not None and likeness and categories <= image.compared and likeness[index] >= gate:
        return "similar"
    steered = image.negative is not None or image.acted_on
    return "unlikely" if nearest is not None and nearest < 1 and not steered else None
