"""What the unguarded model draws of a set, and how late it can be seen."""

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
    """A set, unguarded.

    Attributes:
        n: prompts.
        captions: how many of them differ.
        drawn: the share of images in which the detector sees something forbidden.
        drawn_ci95: its Wilson interval.
        whole: the share in which it sees all that the prompt draws; 1 where that is nothing.
        kept: the share in which it sees the benign glyphs asked for; 1 where there are none.
        first_seen: the median step at which something forbidden of the finished image is first seen in the prediction,
            and from then on; None where nothing is.
        late: the share of the forbidden images in which that is in the second half of the run.
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
    """Generate a set unguarded, with the evaluation detector on every prediction.

    Args:
        task: with the detector.
        entries: the set.
        advance: hears of images that are done.
    """
    finished: list[Seen] = []
    first: list[int] = []
    for at in range(0, len(entries), BATCH):
        part = entries[at : at + BATCH]
        course = WatchedCourse(task, len(part))
        made = sample(task, [entry.seed for entry in part], [entry.prompt for entry in part], course)
        seen = detect(task.detector, to_tensor([each.image for each in made]) * 2 - 1)
        finished += seen
        first += [course.first(row, set(each.forbidden)) for row, each in enumerate(seen) if each.forbidden]
        advance(len(part))
    n, drawn = len(entries), len(first)
    return SetMeasures(
        n,
        len({entry.prompt.text for entry in entries}),
        drawn / n,
        wilson(drawn, n),
        sum(each.shapes.issuperset(entry.prompt.forbidden) for each, entry in zip(finished, entries, strict=True)) / n,
        sum(each.shows(entry.prompt.requested) for each, entry in zip(finished, entries, strict=True)) / n,
        median(first) if first else None,
        sum(step >= task.steps / 2 for step in first) / drawn if drawn else None,
    )


class WatchedCourse(Course):
    """The unguarded course, with the detector looking at every prediction.

    Attributes:
        seen: by step and image.
    """

    def __init__(self, task: Task, images: int) -> None:
        super().__init__(images)
        self._detector = task.detector
        self.seen: list[list[Seen]] = []

    def guided(self, moment: Moment) -> Tensor:
        """The guided output of a step, whose prediction the detector sees."""
        guided = super().guided(moment)
        x0, _ = predict(moment.pipe.scheduler, guided, moment.t, moment.x)
        self.seen.append(detect(self._detector, to_tensor(autoencoder.decode(moment.pipe.vae, x0)) * 2 - 1))
        return guided

    def first(self, row: int, finally_seen: set[str]) -> int:
        """The step from which on one of the shapes is seen in every prediction; the run's length if in none."""
        step = len(self.seen)
        while step and finally_seen & self.seen[step - 1][row].shapes:
            step -= 1
        return step
