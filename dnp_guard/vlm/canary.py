"""Notice when a server's answers change, for example because it now serves another model."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from dnp_guard.errors import VlmChanged, VlmError
from dnp_guard.vlm.answers import probabilities
from dnp_guard.vlm.base import Query, Wrapped, as_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dnp_guard.vlm.answers import Probabilities
    from dnp_guard.vlm.base import Asked, Backend

EVERY_S = 3600.0
TOLERANCE = 0.1
"""How far a probability may drift; batching and hardware change it slightly."""
QUESTIONS = ("Is there a red circle in this image?", "Is there a star in this image?")


@dataclass(frozen=True, slots=True)
class Known:
    """Pictures with known answers.

    Attributes:
        pictures: RGB.
        questions: asked about every picture.
        categories: the category of each question; the highest probability of a category's questions applies.
        shows: for each picture, whether it shows each category.
        thresholds: for each category, the probability from which it is seen.
    """

    pictures: tuple[Image.Image, ...]
    questions: tuple[str, ...]
    categories: tuple[str, ...]
    shows: tuple[Mapping[str, bool], ...]
    thresholds: Mapping[str, float]

    def wrong(self, answers: Probabilities) -> str | None:
        """Describe the first wrong answer; None if all are right."""
        for picture, (row, shows) in enumerate(zip(answers, self.shows, strict=True)):
            highest: dict[str, float] = {}
            for category, probability in zip(self.categories, row, strict=True):
                highest[category] = max(probability, highest.get(category, 0.0))
            for category, probability in highest.items():
                if (probability >= self.thresholds[category]) != shows[category]:
                    what = "does" if shows[category] else "does not"
                    return f"canary {picture} {what} show {category!r}, but the answer was {probability:.2f}"
        return None


class Watched(Wrapped):
    """A backend whose answers to a few fixed pictures must stay what they were at construction.

    The pictures are queried again every hour, and before the first query after a failed one, because a server that
    comes back may serve another model. Once the answers differ, or the server reports another revision, every query
    fails with :class:`~dnp_guard.errors.VlmChanged` until the answers are as before. A new guard takes the answers of
    that moment as its reference.

    Args:
        backend: the backend to watch; its attributes are passed through.
        known: pictures with known answers, used in place of the fixed ones; a wrong answer is treated as a change.
        every_s: seconds between two checks.
        clock: monotonic clock, in seconds.

    Raises:
        VlmError: the first query of the pictures fails, or an answer to a known picture is wrong.
    """

    def __init__(
        self,
        backend: Asked,
        *,
        known: Known | None = None,
        every_s: float = EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(as_backend(backend))
        self._every = every_s
        self._clock = clock
        self._turn = threading.Lock()
        self._known = known
        self._pictures, self._asked = (known.pictures, known.questions) if known else (canaries(), QUESTIONS)
        self._expected = self._answers()
        self._revision = self.info.revision
        self._due = clock() + every_s

    def ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Sequence[Sequence[float]]:
        """Query the backend about the caller's images; like :meth:`put`, check the fixed pictures first if due."""
        return self.put(Query(tuple(images), tuple(questions)))

    def put(self, query: Query) -> Sequence[Sequence[float]]:
        """Pass a query to the backend; if a check of the fixed pictures is due, make it first.

        Raises:
            VlmChanged: the answers are no longer those of the model at construction.
            VlmError: the backend does not answer.
        """
        with self._turn:
            if self._clock() >= self._due:
                self._look()
                self._due = self._clock() + self._every
        try:
            answered = super().put(query)
            self._same_revision()
        except VlmError:
            self._due = self._clock()
            raise
        return answered

    def _look(self) -> None:
        answers = self._answers()
        for picture, (expected, current) in enumerate(zip(self._expected, answers, strict=True)):
            for question, (was, now) in enumerate(zip(expected, current, strict=True)):
                if abs(was - now) > TOLERANCE:
                    raise VlmChanged(
                        f"canary {picture}, question {question}: answered {now:.2f} where it was {was:.2f}",
                        hint="If the change is intended, measure the new model, and create a new guard.",
                    )
        self._same_revision()

    def _same_revision(self) -> None:
        revision = self.info.revision
        if revision != self._revision:
            raise VlmChanged(
                f"the server reports revision {revision!r}; it reported {self._revision!r} before",
                hint="If the change is intended, measure the new model, and create a new guard.",
            )

    def _answers(self) -> Probabilities:
        rows = self.wrapped.ask(self._pictures, self._asked)
        answers = probabilities(rows, len(self._pictures), len(self._asked))
        if self._known is not None and (wrong := self._known.wrong(answers)):
            raise VlmChanged(wrong, hint="Measure the model with `dnp-guard vlm calibrate` before it is trusted.")
        return answers


def watched(backend: Backend) -> Watched:
    """Wrap a backend as :class:`Watched`; close the backend if that fails."""
    try:
        return Watched(backend)
    except VlmError:
        backend.close()
        raise


def canaries() -> tuple[Image.Image, ...]:
    """Draw three pictures: a red circle, a grey gradient, and solid black."""
    circle = Image.new("RGB", (64, 64), (240, 240, 240))
    ImageDraw.Draw(circle).ellipse((12, 12, 52, 52), fill=(210, 30, 30))
    return circle, Image.linear_gradient("L").resize((64, 64)).convert("RGB"), Image.new("RGB", (64, 64))
