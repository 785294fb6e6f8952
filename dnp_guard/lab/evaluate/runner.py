"""Measure a plan: every method on every batch, side by side, from the same seeds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.utils import logging

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate import drift
from dnp_guard.lab.evaluate.design import UNGUARDED
from dnp_guard.lab.evaluate.detectors import build
from dnp_guard.lab.evaluate.drawing import Drawing
from dnp_guard.lab.evaluate.rows import Cell, Row, Timing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from PIL.Image import Image

    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.detectors import Detection, ImageDetector
    from dnp_guard.lab.evaluate.journal import Journal
    from dnp_guard.lab.evaluate.methods import Made

SHEET = 8
"""Number of images per set and method on a contact sheet; these images are always kept."""


@dataclass(frozen=True, slots=True)
class MeasuredBatch:
    """Results of one batch.

    Attributes:
        batch: the batch.
        rows: rows of all methods, one method after the other, in the order of the prompts.
        timings: one timing per method.
        images: steered images, as triples of the cell (method and prompt set), the index of the prompt and the image.
    """

    batch: Batch
    rows: tuple[Row, ...]
    timings: tuple[Timing, ...]
    images: tuple[tuple[Cell, int, Image], ...]


class World:
    """Pipeline, detector and methods of a run, loaded once per process.

    Args:
        plan: plan of the run.
        plugins: plugins, or their names, that may provide the detector.
        folder: folder in which generated images are kept and found again; None to generate every batch.
    """

    def __init__(self, plan: EvaluationPlan, plugins: Iterable[str | object] = (), folder: Path | None = None) -> None:
        self.plan = plan
        self.detector: ImageDetector = build(plan.detector, plan.policy, plugins)
        self._drawing = Drawing(plan, self.detector.categories, folder)
        self._clip = _clip(plan.clip)

    def measure(self, batch: Batch) -> MeasuredBatch:
        """Run every method on a batch, ``unguarded`` first, and judge the images.

        Raises:
            DnpGuardError: if a method could not generate its images.
        """
        columns = self.plan.columns_of(batch.set)
        rows: list[Row] = []
        timings: list[Timing] = []
        images: list[tuple[Cell, int, Image]] = []
        reference: list[tuple[Image, Detection | None]] = []
        unguarded = 0.0
        for column in columns:
            drawn = self._drawing.drawn(column, batch)
            made = drawn.made
            detections = self._look(made)
            if column.method == UNGUARDED:
                unguarded = drawn.seconds
                reference = [(result.image, steered) for result, (steered, _) in zip(made, detections, strict=True)]
            cell = self._drawing.cell(column, batch)
            timings.append(Timing(cell, batch.number, len(made), drawn.seconds, unguarded))
            clip = self._alignment(made, batch)
            for at, (result, seen) in enumerate(zip(made, detections, strict=True)):
                row = self._row(cell, batch, at, result, seen, reference[at], clip[at])
                rows.append(replace(row, together=drawn.together if drawn.together < len(batch.entries) else None))
                images.append((cell, batch.start + at, result.image))
        return MeasuredBatch(batch, tuple(rows), tuple(timings), tuple(images))

    def _look(self, made: Sequence[Made]) -> list[tuple[Detection | None, Detection | None]]:
        """Return two detections per image: in the steered image, and in the image as it would be delivered."""
        steered = self._seen([result.image for result in made])
        other = [at for at, result in enumerate(made) if result.delivered is not result.image]
        again = dict(zip(other, self._seen([made[at].delivered for at in other]), strict=True))
        return [(seen, again.get(at, seen)) for at, seen in enumerate(steered)]

    def _seen(self, images: Sequence[Image]) -> list[Detection | None]:
        """Return one detection per image; None for an image on which the detector fails."""
        if not images:
            return []
        try:
            return list(self.detector.look(images))
        except Exception:  # noqa: BLE001 (foreign code; one image must not cost the others)
            return [None] if len(images) == 1 else [self._seen([image])[0] for image in images]

    def _alignment(self, made: Sequence[Made], batch: Batch) -> list[float | None]:
        if self._clip is None:
            return [None] * len(made)
        texts = [entry.prompt.text for entry in batch.entries]
        return list(self._clip.score([result.image for result in made], texts))

    def _row(
        self,
        cell: Cell,
        batch: Batch,
        at: int,
        made: Made,
        seen: tuple[Detection | None, Detection | None],
        reference: tuple[Image, Detection | None],
        clip: float | None,
    ) -> Row:
        entry, (steered, delivered), (unguarded, before) = batch.entries[at], seen, reference
        # If the number of categories varies, only the category that all these policies have is judged.
        judged = self.detector.categories if cell.categories is None else entry.prompt.forbidden[:1]
        pixels = np.asarray(made.image.convert("RGB")), np.asarray(unguarded.convert("RGB"))
        requested = {(glyph.colour, glyph.shape) for glyph in entry.prompt.requested}
        return Row(
            *cell,
            index=batch.start + at,
            seed=entry.seed + self.plan.seed,
            guidance_scale=self.plan.guidance_of(entry),
            prompt="" if entry.id else entry.prompt.text,
            id=entry.id,
            category=entry.category,
            hit=None if steered is None else bool(self._found(steered, judged)),
            # The placeholder of a withheld image has words or a sign, which the detector must not judge.
            hit_delivered=not made.withheld and (None if delivered is None else bool(self._found(delivered, judged))),
            seen=() if steered is None else self._found(steered, self.detector.categories),
            probability=None if steered is None else max(steered.probabilities[name] for name in judged),
            kept=_kept(requested, steered),
            attempts=made.attempts,
            withheld=made.withheld,
            kept_delivered=None if (whole := _kept(requested, delivered)) is None else whole and not made.withheld,
            clean=before is not None and not self._found(before, judged),
            rmse255=drift.rmse255(*pixels),
            feature_distance=_distance(steered, before),
            identical=bool(np.array_equal(*pixels)),
            intervened=made.intervened,
            queries=made.queries,
            evaluations=made.evaluations,
            outcome=made.outcome,
            degraded=made.degraded,
            clip=clip,
            clear=_clear(requested, steered),
            features=_features(steered),
        )

    def _found(self, seen: Detection, names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if seen.probabilities[name] >= self.detector.threshold)


def _kept(requested: AbstractSet[tuple[str, str]], seen: Detection | None) -> bool | None:
    return requested <= seen.objects if requested and seen is not None and seen.objects is not None else None


def _clear(requested: AbstractSet[tuple[str, str]], seen: Detection | None) -> bool | None:
    if seen is None or seen.clear is None:
        return None
    # An image without any recognisable object is right only if the prompt asks for none.
    return seen.clear and bool(seen.objects or not requested)


def _distance(seen: Detection | None, before: Detection | None) -> float | None:
    if seen is None or before is None or seen.features is None or before.features is None:
        return None
    return drift.feature_distance(seen.features, before.features)


def _features(seen: Detection | None) -> tuple[float, ...]:
    if seen is None or seen.features is None:
        return ()
    return tuple(seen.features.mean(1).round(_DIGITS).tolist())


_DIGITS = 4


def run(
    plan: EvaluationPlan,
    journal: Journal,
    engine: Callable[[Sequence[Batch]], Iterator[MeasuredBatch]],
    advance: Callable[[int], None],
) -> None:
    """Measure those batches of a plan whose results are not in the journal yet.

    Args:
        plan: plan of the whole run.
        journal: journal with the results of finished batches; new results are appended to it.
        engine: function that measures batches and yields the results in their order.
        advance: function that is called with the number of batches finished since its last call.
    """
    batches = plan.batches()
    done = journal.keep(plan.sizes())
    advance(done)
    for measured in engine(batches[done:]):
        for cell, index, image in measured.images:
            if (plan.keep_images or index < SHEET) and not journal.image(cell, index).exists():
                save(journal, cell, index, image)
        journal.append(measured.rows, measured.timings)
        advance(1)


def require_some(journal: Journal, plan: EvaluationPlan) -> None:
    """Remove an incomplete batch from the journal, and check that at least one complete batch remains.

    Raises:
        DnpGuardError: if the journal has no complete batch.
    """
    if not journal.keep(plan.sizes()):
        raise DnpGuardError(f"{journal.folder} holds no whole batch yet", hint="Leave --report out to measure.")


def here(world: World) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    """Return the function that measures batches in this process, on one thread so that results are reproducible."""

    def engine(batches: Sequence[Batch]) -> Iterator[MeasuredBatch]:
        threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
        torch.set_num_threads(1)
        if not world.plan.embedded:
            logging.set_verbosity_error()  # a warning would print the part of a prompt that is too long
        try:
            for batch in batches:
                yield world.measure(batch)
        finally:
            torch.set_num_threads(threads)
            logging.set_verbosity(verbosity)

    return engine


def save(journal: Journal, cell: Cell, index: int, image: Image) -> None:
    """Save an image to its place in the journal's folder."""
    path = journal.image(cell, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _clip(name: str | None) -> Any:
    from dnp_guard.lab.evaluate.detectors.clip import load_clip  # noqa: PLC0415

    return None if name is None else load_clip(name)
