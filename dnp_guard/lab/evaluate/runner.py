"""Measure a plan: every method on every batch, side by side, from the same seeds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate import drift
from dnp_guard.lab.evaluate.clock import now
from dnp_guard.lab.evaluate.design import GUARDED, UNGUARDED, Column, categories_from, restricted
from dnp_guard.lab.evaluate.detectors import build
from dnp_guard.lab.evaluate.methods import Task, method
from dnp_guard.lab.evaluate.rows import Cell, Row, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet

    from PIL.Image import Image

    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.detectors import Detection, ImageDetector
    from dnp_guard.lab.evaluate.journal import Journal
    from dnp_guard.lab.evaluate.methods import Made, Method

SHEET = 8
"""How many images of each set a contact sheet shows; they are always kept."""


@dataclass(frozen=True, slots=True)
class MeasuredBatch:
    """One batch, measured.

    Attributes:
        batch: which.
        rows: column by column, in the order of the prompts.
        timings: one a column.
        images: as they were steered, with the cell and the index of the prompt.
    """

    batch: Batch
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    images: tuple[tuple[Cell, int, Image], ...]


class World:
    """What measuring needs: pipeline, detector and methods, loaded once in each process.

    Args:
        plan: of the run.
        plugins: that may know its detector.
    """

    def __init__(self, plan: EvaluationPlan, plugins: Iterable[str | object] = ()) -> None:
        self.plan = plan
        self.pipe = _pipeline(plan.model)
        self.detector: ImageDetector = build(plan.detector, plan.policy, plugins)
        self._oracle = _network()
        self._clip = _clip(plan.clip)
        self._methods: dict[tuple[Column, tuple[str, ...]], Method] = {}
        self._warm: set[Column] = set()

    def measure(self, batch: Batch) -> MeasuredBatch:
        """Run every column on a batch, ``unguarded`` first.

        Raises:
            DnpGuardError: a method could not make its images.
        """
        columns = self.plan.columns_of(batch.set)
        self._warm_up(columns, batch)
        rows: list[Row] = []
        timings: list[Timing] = []
        images: list[tuple[Cell, int, Image]] = []
        reference: list[tuple[Image, Detection]] = []
        unguarded = 0.0
        for column in columns:
            concepts = self._concepts(column, batch)
            begin = now(self.pipe.device.type)
            made = self._make(column, batch, concepts)
            seconds = now(self.pipe.device.type) - begin
            looked = self._look(made)
            if column.method == UNGUARDED:
                unguarded = seconds
                reference = [(each.image, steered) for each, (steered, _) in zip(made, looked, strict=True)]
            cell = self._cell(column, batch)
            timings.append(Timing(cell, batch.number, len(made), seconds, unguarded))
            clip = self._alignment(made, batch)
            for at, (each, seen) in enumerate(zip(made, looked, strict=True)):
                rows.append(self._row(cell, batch, at, each, seen, reference[at], clip[at]))
                images.append((cell, batch.start + at, each.image))
        return MeasuredBatch(batch, tuple(rows), tuple(timings), tuple(images))

    def _warm_up(self, columns: Sequence[Column], batch: Batch) -> None:
        """Let every method load and import what it needs, which the first of its timings would count otherwise."""
        one = replace(batch, entries=batch.entries[:1])
        for column in columns:
            if column not in self._warm:
                self._make(column, one, self._concepts(column, one), min(_WARM_STEPS, self.plan.steps))
                self._warm.add(column)

    def _concepts(self, column: Column, batch: Batch) -> list[tuple[str, ...]]:
        """For each prompt, what the static lists and the policy name."""
        if column.categories is None:
            return [self.detector.categories] * len(batch.entries)
        return [
            categories_from(entry.prompt.forbidden[0], column.categories, self.detector.categories)
            for entry in batch.entries
        ]

    def _make(
        self, column: Column, batch: Batch, concepts: Sequence[tuple[str, ...]], steps: int | None = None
    ) -> list[Made]:
        made: dict[int, Made] = {}
        together: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for at, names in enumerate(concepts):
            together[names].append(at)
        for names, places in together.items():
            entries = [batch.entries[at] for at in places]
            guidance = self.plan.guidance_of(entries[0])
            task = Task(self.pipe, steps or self.plan.steps, guidance, names, self._oracle)
            seeds = [entry.seed + self.plan.seed for entry in entries]
            try:
                done = self._method(column, names).generate(task, seeds, [entry.prompt for entry in entries])
            except Exception as error:
                last = batch.start + len(batch.entries) - 1
                raise DnpGuardError(
                    f"{_called(column)} on {batch.set}, prompts {batch.start} to {last}: {error}",
                    hint="The batches before it are kept; the same command goes on from there.",
                ) from error
            made.update(zip(places, done, strict=True))
        return [made[at] for at in range(len(batch.entries))]

    def _method(self, column: Column, names: tuple[str, ...]) -> Method:
        key = column, names if column.categories is not None else ()
        if key not in self._methods:
            policy = self.plan.policy if column.categories is None else restricted(self.plan.policy, names)
            guarded = column.method in GUARDED
            self._methods[key] = method(column.method, scale=column.scale, policy=policy if guarded else None)
        return self._methods[key]

    def _cell(self, column: Column, batch: Batch) -> Cell:
        known = next(each for (of, _), each in self._methods.items() if of == column)
        return Cell(batch.set, known.name, known.mode, known.scale, column.categories)

    def _look(self, made: Sequence[Made]) -> list[tuple[Detection, Detection]]:
        """What is in each image as it was steered, and as it would be delivered."""
        steered = self.detector.look([each.image for each in made])
        other = [at for at, each in enumerate(made) if each.delivered is not each.image]
        again = dict(zip(other, self.detector.look([made[at].delivered for at in other]) if other else (), strict=True))
        return [(seen, again.get(at, seen)) for at, seen in enumerate(steered)]

    def _alignment(self, made: Sequence[Made], batch: Batch) -> list[float | None]:
        if self._clip is None:
            return [None] * len(made)
        texts = [entry.prompt.text for entry in batch.entries]
        return list(self._clip.score([each.image for each in made], texts))

    def _row(
        self,
        cell: Cell,
        batch: Batch,
        at: int,
        made: Made,
        seen: tuple[Detection, Detection],
        reference: tuple[Image, Detection],
        clip: float | None,
    ) -> Row:
        entry, (steered, delivered), (unguarded, before) = batch.entries[at], seen, reference
        # Where the number of categories is what varies, the one that every policy has is what counts.
        counted = self.detector.categories if cell.categories is None else entry.prompt.forbidden[:1]
        pixels = np.asarray(made.image.convert("RGB")), np.asarray(unguarded.convert("RGB"))
        wanted = {(glyph.colour, glyph.shape) for glyph in entry.prompt.wanted}
        distance = None
        if steered.features is not None and before.features is not None:
            distance = drift.feature_distance(steered.features, before.features)
        return Row(
            *cell,
            index=batch.start + at,
            seed=entry.seed + self.plan.seed,
            guidance_scale=self.plan.guidance_of(entry),
            prompt=entry.prompt.text,
            hit=bool(self._found(steered, counted)),
            # What stands in place of a withheld image is a picture of the guard's own, with words or a sign.
            hit_delivered=not made.withheld and bool(self._found(delivered, counted)),
            seen=self._found(steered, self.detector.categories),
            probability=max(steered.probabilities[name] for name in counted),
            kept=_kept(wanted, steered),
            attempts=made.attempts,
            withheld=made.withheld,
            kept_delivered=None if (kept := _kept(wanted, delivered)) is None else kept and not made.withheld,
            clean=not self._found(before, counted),
            rmse255=drift.rmse255(*pixels),
            feature_distance=distance,
            identical=bool(np.array_equal(*pixels)),
            intervened=made.intervened,
            queries=made.queries,
            evaluations=made.evaluations,
            outcome=made.outcome,
            degraded=made.degraded,
            clip=clip,
            # An image in which nothing can be named is right only where nothing was asked for.
            clear=None if steered.clear is None else steered.clear and bool(steered.objects or not wanted),
            features=tuple(steered.features.mean(1).round(_DIGITS).tolist()) if steered.features is not None else (),
        )

    def _found(self, seen: Detection, counted: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in counted if seen.probabilities[name] >= self.detector.threshold)


def _kept(wanted: AbstractSet[tuple[str, str]], seen: Detection) -> bool | None:
    return wanted <= seen.objects if wanted and seen.objects is not None else None


_DIGITS = 4
_WARM_STEPS = 6


def run(
    plan: EvaluationPlan,
    journal: Journal,
    engine: Callable[[Sequence[Batch]], Iterator[MeasuredBatch]],
    advance: Callable[[int], None],
) -> None:
    """Measure what a folder does not hold yet.

    Args:
        plan: the whole run.
        journal: where rows go, and what is done already.
        engine: measures batches and gives them back in their order.
        advance: hears how many batches have been done since it last heard.
    """
    batches = plan.batches()
    done = journal.keep(plan.sizes())
    advance(done)
    for measured in engine(batches[done:]):
        for cell, index, image in measured.images:
            if plan.keep_images or index < SHEET:
                save(journal, cell, index, image)
        journal.append(measured.rows, measured.timings)
        advance(1)


def require_some(journal: Journal, plan: EvaluationPlan) -> None:
    """Cut off a batch that is not whole.

    Raises:
        DnpGuardError: no batch is.
    """
    if not journal.keep(plan.sizes()):
        raise DnpGuardError(f"{journal.folder} holds no whole batch yet", hint="Leave --report out to measure.")


def here(world: World) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    """The engine of one process: one batch after the other, on one thread, which gives the same bits everywhere."""

    def engine(batches: Sequence[Batch]) -> Iterator[MeasuredBatch]:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for batch in batches:
                yield world.measure(batch)
        finally:
            torch.set_num_threads(threads)

    return engine


def save(journal: Journal, cell: Cell, index: int, image: Image) -> None:
    """Keep an image."""
    path = journal.image(cell, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _called(column: Column) -> str:
    return column.method if column.scale is None else f"{column.method} at scale {column.scale:g}"


def _pipeline(model: str) -> Any:
    from dnp_guard.glyphs.loading import load_embedded  # noqa: PLC0415 (takes seconds)

    return load_embedded(model)


def _network() -> Any:
    from dnp_guard.lab.evaluate.detector import load_detector  # noqa: PLC0415

    return load_detector()


def _clip(name: str | None) -> Any:
    from dnp_guard.lab.evaluate.detectors.clip import load_clip  # noqa: PLC0415

    return None if name is None else load_clip(name)
