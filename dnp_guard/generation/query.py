"""Query the pictures of a batch: ask the questions, collect the findings, and ask about cases that excuse them.

A query changes no state and writes no record, so it may run on another thread while denoising goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.generation import judge, pacing
from dnp_guard.policy.model.questions import allowed_questions, negation

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence
    from concurrent.futures import Future

    from PIL.Image import Image

    from dnp_guard.generation.plan import Plan
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.telemetry.tracing import GenerationSpan
    from dnp_guard.types import Finding
    from dnp_guard.vlm.desk import Desk


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query; sequences have one entry per image.

    Attributes:
        pictures: one RGB picture per image; of the frames of a video, the one with the highest probability.
        asked: ids of the categories that were asked about.
        found: findings at or above their threshold, in policy order.
        probabilities: P(category) of the categories that were asked about.
        waived: findings that an allowed case excuses.
        latency_ms: how long the answer took, in milliseconds.
        unexcused: error of the second query, which asks about allowed cases; None if it was answered or not needed.
    """

    pictures: Sequence[Image]
    asked: frozenset[str]
    found: Sequence[tuple[Finding, ...]]
    probabilities: Sequence[Mapping[str, float]]
    waived: Sequence[tuple[Finding, ...]]
    latency_ms: float
    unexcused: Exception | None = None


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Puts the queries of one generation to the vision-language model.

    Attributes:
        policy: provides questions, thresholds and the deadline.
        desk: queue in front of the backend, shared with other guards.
        span: trace span of the generation.
        turn: name of the asker, such as a tenant; the desk serves its askers in rotation.
    """

    policy: Policy
    desk: Desk
    span: GenerationSpan
    turn: Hashable = None

    def put(self, plan: Plan, pictures: Sequence[Sequence[Image]]) -> Answer:
        """Query pictures, and then ask about the cases that excuse the findings, within one deadline for both.

        Args:
            plan: the query.
            pictures: RGB pictures per image of the plan: one, or several such as frames. A category found in any of
                them is found in the image.

        Raises:
            VlmError: there is no answer. If only the question about allowed cases fails, nothing is raised, and the
                findings stand.
        """
        count, at = len(plan.questions), plan.step.index if plan.step is not None else None
        paired = map(negation, plan.questions) if self.policy.question.paired else ()
        texts = [question.text for question in (*plan.questions, *paired)]
        shown = [picture for of_image in pictures for picture in of_image]
        with self.span.query(at, len(shown), len(texts), self.desk.info.name):
            answers = self.desk.ask(
                shown,
                texts,
                deadline_ms=self.policy.queries.deadline_ms,
                loosening=range(count, len(texts)),
                final=plan.step is None,
                turn=self.turn,
            )
        rows = answers.probabilities
        if self.policy.question.paired:
            rows = tuple(judge.stricter(row[:count], row[count:]) for row in rows)
        of_images = _grouped(rows, pictures)
        final, progress = plan.step is None, pacing.progress(plan.step)
        seen = [
            judge.find(self.policy, plan.questions, _most(of_image), final=final, progress=progress)
            for of_image in of_images
        ]
        found = [findings for findings, _ in seen]
        waived, unexcused = self._waived(pictures, found, answers.latency_ms, final=final)
        return Answer(
            [_telling(shown, of_image) for shown, of_image in zip(pictures, of_images, strict=True)],
            plan.categories,
            found,
            [probabilities for _, probabilities in seen],
            waived,
            answers.latency_ms,
            unexcused,
        )

    def aside(self, plan: Plan, pictures: Sequence[Sequence[Image]]) -> Future[Answer]:
        """Put a query like :meth:`put`, but on another thread; return at once."""
        return self.desk.aside(lambda: self.put(plan, pictures), turn=self.turn)

    def _waived(
        self, pictures: Sequence[Sequence[Image]], found: Sequence[Sequence[Finding]], spent_ms: float, *, final: bool
    ) -> tuple[list[tuple[Finding, ...]], Exception | None]:
        """Ask about the ``allowed`` cases of all findings in one query; without an answer nothing is waived.

        A finding in an image of several pictures is waived only if all the pictures show an allowed case.
        """
        terms: dict[str, dict[str, None]] = {}
        for finding in (finding for findings in found for finding in findings):
            terms.setdefault(finding.category, {})[finding.term] = None
        questions = [
            question
            for category, names in terms.items()
            for question in allowed_questions(self.policy, category, names)
        ]
        concerned = [index for index, findings in enumerate(found) if findings] if questions else []
        waived: list[tuple[Finding, ...]] = [() for _ in found]
        if not concerned:
            return waived, None
        shown = [pictures[index] for index in concerned]
        try:
            answers = self.desk.ask(
                [picture for of_image in shown for picture in of_image],
                [question.text for question in questions],
                deadline_ms=self.policy.queries.deadline_ms,
                loosening=range(len(questions)),
                spent_ms=spent_ms,
                final=final,
                turn=self.turn,
            )
        except Exception as error:  # noqa: BLE001 (returned to the caller, who goes on without it)
            return waived, error
        for index, rows in zip(concerned, _grouped(answers.probabilities, shown), strict=True):
            waived[index] = judge.waive(self.policy, found[index], questions, rows)
        return waived, None


def _grouped(rows: Sequence[Sequence[float]], pictures: Sequence[Sequence[Image]]) -> list[Sequence[Sequence[float]]]:
    """Group the rows of an answer, one per picture, by the image that the pictures belong to."""
    grouped, start = [], 0
    for of_image in pictures:
        grouped.append(rows[start : start + len(of_image)])
        start += len(of_image)
    return grouped


def _most(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return the highest answer to each question over the pictures of an image."""
    return [max(answers) for answers in zip(*rows, strict=True)]


def _telling(pictures: Sequence[Image], rows: Sequence[Sequence[float]]) -> Image:
    """Return the one of an image's pictures that has the highest probability for any question."""
    return max(zip(pictures, rows, strict=True), key=lambda pair: max(pair[1], default=0.0))[0]
