"""Measure the unguarded images of a prompt set, and the step from which on their content can be seen."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from dnp_guard.hosts.diffusers.prediction import predict
from dnp_guard.lab.evaluate.detector import detect
from dnp_guard.lab.evaluate.intervals import wilson
from dnp_guard.lab.evaluate.methods.sampling import Course, sample
from dnp_guard.preview import autoencoder
from dnp_guard.preview.autoencoder import to_tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from dnp_guard.lab.evaluate.detector import Seen
    from dnp_guard.lab.evaluate.methods.base import Task
    from dnp_guard.lab.evaluate.methods.sampling import Moment
    from dnp_guard.lab.evaluate.prompt_sets.entries import Entry

BATCH = 16


@dataclass(frozen=True, slots=True)
class SetMeasures:
    """Figures of the unguarded images of a prompt set.

    Attributes:
        n: number of prompts.
        captions: number of different prompts.
        drawn: share of the images in which the detector sees a forbidden glyph.
        drawn_ci95: 95 % Wilson interval of that share.
        whole: share of the images that show all forbidden glyphs of their prompt.
        kept: share of the images that show all benign glyphs of their prompt.
        first_seen: median, over images with a forbidden glyph, of the step from which on every prediction shows it;
            None if no image has one.
        late: share of the images with a forbidden glyph in which that step is in the second half of the run; None if
            there are none.
    """

    n: int
    captions: int
    drawn: float
    drawn_ci95: tuple[float, float]
    whole: float
    kept: float
    first_seen: float | None
    late: float | None


def measure(task: Task, entries: Sequence[Entry], advance: Callable[[int], None] = lambda _: None) -> SetMeasures:
    """Generate the images of a set unguarded; run the detector on them and on the prediction x̂0 of every step.

    Args:
        task: pipeline, steps and guidance, with the evaluation detector.
        entries: prompts of the set.
        advance: function that is called after every batch, with its number of images.
    """
    finished: list[Seen] = []
    first: list[int] = []
    for at in range(0, len(entries), BATCH):
        part = entries[at : at + BATCH]
        course = WatchedCourse(task, len(part))
        made = sample(task, [entry.seed for entry in part], [entry.prompt for entry in part], course)
        seen = detect(task.detector, to_tensor([result.image for result in made]) * 2 - 1)
        finished += seen
        first += [course.first(row, set(view.forbidden)) for row, view in enumerate(seen) if view.forbidden]
        advance(len(part))
    n, drawn = len(entries), len(first)
    return SetMeasures(
        n,
        len({entry.prompt.text for entry in entries}),
        drawn / n,
        wilson(drawn, n),
        sum(view.shapes.issuperset(entry.prompt.forbidden) for view, entry in zip(finished, entries, strict=True)) / n,
        sum(view.shows(entry.prompt.requested) for view, entry in zip(finished, entries, strict=True)) / n,
        median(first) if first else None,
        sum(step >= task.steps / 2 for step in first) / drawn if drawn else None,
    )


class WatchedCourse(Course):
    """Part in unguarded sampling that runs the evaluation detector on the prediction x̂0 of every step.

    Attributes:
        seen: detections, as ``seen[step][image]``.
    """

    def __init__(self, task: Task, images: int) -> None:
        super().__init__(images)
        self._detector = task.detector
        self.seen: list[list[Seen]] = []

    def guided(self, moment: Moment) -> Tensor:
        """Return the guided output of a step, and run the detector on its prediction."""
        guided = super().guided(moment)
        x0, _ = predict(moment.pipe.scheduler, guided, moment.t, moment.x)
        self.seen.append(detect(self._detector, to_tensor(autoencoder.decode(moment.pipe.vae, x0)) * 2 - 1))
        return guided

    def first(self, row: int, finally_seen: set[str]) -> int:
        """Return the step from which on every prediction of an image shows a shape of ``finally_seen``.

        If the last prediction shows none of them, this is the number of steps.
        """
        step = len(self.seen)
        while step and finally_seen & self.seen[step - 1][row].shapes:
            step -= 1
        return step
