"""One query about the pictures of a batch: put the questions, find what is seen, ask what excuses it.

It changes nothing and records nothing, so that it may run on another thread while the image is denoised on.
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
    """An answered query; one entry per image.

    Attributes:
        pictures: RGB; of several pictures of an image the one that shows most.
        asked: ids of the categories that were asked about.
        found: terms at or over their threshold, in policy order.
        probabilities: P(category) of those asked about.
        waived: findings that an allowed case excuses.
        latency_ms: how long the answer took.
        unexcused: why the allowed cases could not be asked about; None where they could, or there were none.
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
    """Puts the queries of one generation.

    Attributes:
        policy: gives questions, thresholds and the deadline.
        desk: of the backend that answers.
        span: of the generation.
        turn: who asks, among those who share the desk.
    """

    policy: Policy
    desk: Desk
    span: GenerationSpan
    turn: Hashable = None

    def put(self, plan: Plan, pictures: Sequence[Sequence[Image]]) -> Answer:
        """Ask about pictures, and then about what excuses what was found in them, within one deadline.

        Args:
            plan: the query.
            pictures: of each image of the plan, RGB: one, or several such as frames; what is seen in one of them is
                seen in the image.

        Raises:
            VlmError: no answer. An unanswered question about an allowed case does not raise: a finding stands until it
                is excused.
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
        """Ask as :meth:`put` does, beside what the caller goes on to do."""
        return self.desk.aside(lambda: self.put(plan, pictures), turn=self.turn)

    def _waived(
        self, pictures: Sequence[Sequence[Image]], found: Sequence[Sequence[Finding]], spent_ms: float, *, final: bool
    ) -> tuple[list[tuple[Finding, ...]], Exception | None]:
        """Ask the ``allowed`` questions of what was found, of all images at once; unanswered, nothing is waived.

        Of several pictures of an image each has to be allowed.
        """
        terms: dict[str, dict[str, None]] = {}
        for finding in (finding for findings in found for finding in findings):
            terms.setdefault(finding.category, {})[finding.term] = None
        questions = [
            question for category, of in terms.items() for question in allowed_questions(self.policy, category, of)
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
        except Exception as error:  # noqa: BLE001 (told to the caller, who goes on without)
            return waived, error
        for index, rows in zip(concerned, _grouped(answers.probabilities, shown), strict=True):
            waived[index] = judge.waive(self.policy, found[index], questions, rows)
        return waived, None


def _grouped(rows: Sequence[Sequence[float]], pictures: Sequence[Sequence[Image]]) -> list[Sequence[Sequence[float]]]:
    """The answers about each image's pictures."""
    grouped, start = [], 0
    for of_image in pictures:
        grouped.append(rows[start : start + len(of_image)])
        start += len(of_image)
    return grouped


def _most(rows: Sequence[Sequence[float]]) -> list[float]:
    """The highest answer to each question about any picture of an image."""
    return [max(answers) for answers in zip(*rows, strict=True)]


def _telling(pictures: Sequence[Image], rows: Sequence[Sequence[float]]) -> Image:
    """The picture of an image in which most is seen."""
    return max(zip(pictures, rows, strict=True), key=lambda pair: max(pair[1], default=0.0))[0]
