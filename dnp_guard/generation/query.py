"""One look at the pictures of a batch: what is asked, what is found, and what an allowed case excuses.

It changes nothing and records nothing, so that it may be made on another thread while the image is denoised on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.generation import judge
from dnp_guard.policy import allowed_questions, negation

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable, Mapping, Sequence

    from PIL.Image import Image

    from dnp_guard.policy import Policy
    from dnp_guard.telemetry.tracing import GenerationSpan
    from dnp_guard.types import Finding, Question
    from dnp_guard.vlm.desk import Answers, Desk


@dataclass(frozen=True, slots=True)
class Seen:
    """An answered look; one entry an image.

    Attributes:
        pictures: what was looked at, RGB; of several pictures of an image the one that shows most.
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
class Looker:
    """Asks for one generation.

    Attributes:
        policy: gives questions and thresholds.
        desk: who answers.
        span: of the generation.
        images: the size of the batch; None for a picture an image.
        turn: who asks.
    """

    policy: Policy
    desk: Desk
    span: GenerationSpan
    images: int | None = None
    turn: Hashable = None

    def look(
        self,
        pictures: Sequence[Image],
        questions: Sequence[Question],
        *,
        step: int | None = None,
        progress: float | None = None,
    ) -> Seen:
        """Ask about pictures, and then about what excuses what was found in them, within one deadline.

        Args:
            pictures: RGB, one an image of the batch, or as many of each, such as frames, those of an image together;
                what is seen in one of them is seen in the image.
            questions: one or more.
            step: the sampler step; None for the final look.
            progress: the part of the run that is done, for thresholds by range of steps.

        Raises:
            VlmError: no answer. An unanswered question about an allowed case does not raise: a finding stands until it
                is excused.
        """
        count = len(questions)
        asked = [*questions, *(map(negation, questions) if self.policy.question.paired else ())]
        with self.span.query(step, len(pictures), len(asked), self.desk.info.name):
            answers = self._ask(pictures, asked, range(count, len(asked)), final=step is None)
        rows = answers.probabilities
        if self.policy.question.paired:
            rows = tuple(judge.stricter(row[:count], row[count:]) for row in rows)
        each = len(pictures) // (self.images or len(pictures) or 1)
        frames = [pictures[start : start + each] for start in range(0, len(pictures), each)] if each else []
        of_image = [rows[start : start + each] for start in range(0, len(rows), each)] if each else []
        most = [[max(answers) for answers in zip(*of_frames, strict=True)] for of_frames in of_image]
        seen = [judge.find(self.policy, questions, row, final=step is None, progress=progress) for row in most]
        found = [findings for findings, _ in seen]
        waived, unexcused = self._waived(frames, found, answers.latency_ms, final=step is None)
        return Seen(
            [_telling(shown, of_frames) for shown, of_frames in zip(frames, of_image, strict=True)],
            frozenset(question.category for question in questions),
            found,
            [probabilities for _, probabilities in seen],
            waived,
            answers.latency_ms,
            unexcused,
        )

    def _waived(
        self, frames: Sequence[Sequence[Image]], found: Sequence[Sequence[Finding]], spent_ms: float, *, final: bool
    ) -> tuple[list[tuple[Finding, ...]], Exception | None]:
        """Ask the ``allowed`` questions of what was found, of all images at once; unanswered, nothing is waived.

        Of several pictures of an image each has to be allowed.
        """
        categories = dict.fromkeys(finding.category for findings in found for finding in findings)
        asked = [question for category in categories for question in allowed_questions(self.policy, category)]
        concerned = [index for index, findings in enumerate(found) for _ in frames[index] if findings] if asked else []
        waived: list[tuple[Finding, ...]] = [() for _ in found]
        if not concerned:
            return waived, None
        shown = [frame for index in dict.fromkeys(concerned) for frame in frames[index]]
        try:
            answers = self._ask(shown, asked, range(len(asked)), final=final, spent_ms=spent_ms)
        except Exception as error:  # noqa: BLE001 (told to the caller, who goes on without)
            return waived, error
        excused: dict[int, dict[str, float]] = {}
        for index, row in zip(concerned, answers.probabilities, strict=True):
            allowed: dict[str, float] = {}
            for question, probability in zip(asked, row, strict=True):
                allowed[question.category] = max(probability, allowed.get(question.category, 0.0))
            before = excused.get(index, allowed)
            excused[index] = {category: min(before[category], allowed[category]) for category in allowed}
        for index, allowed in excused.items():
            waived[index] = judge.waive(self.policy, found[index], allowed)
        return waived, None

    def _ask(
        self,
        pictures: Sequence[Image],
        asked: Sequence[Question],
        loosening: Collection[int],
        *,
        final: bool,
        spent_ms: float = 0.0,
    ) -> Answers:
        return self.desk.ask(
            pictures,
            [question.text for question in asked],
            deadline_ms=self.policy.queries.deadline_ms,
            spent_ms=spent_ms,
            loosening=loosening,
            final=final,
            turn=self.turn,
        )


def _telling(frames: Sequence[Image], rows: Sequence[Sequence[float]]) -> Image:
    """The picture of an image in which most is seen."""
    return max(zip(frames, rows, strict=True), key=lambda pair: max(pair[1], default=0.0))[0]
