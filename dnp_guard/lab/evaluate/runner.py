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
        folder: where drawn images are kept and found again; None to draw every batch.
    """

    def __init__(self, plan: EvaluationPlan, plugins: Iterable[str | object] = (), folder: Path | None = None) -> None:
        self.plan = plan
        self.detector: ImageDetector = build(plan.detector, plan.policy, plugins)
        self._drawing = Drawing(plan, self.detector.categories, folder)
        self._clip = _clip(plan.clip)

    def measure(self, batch: Batch) -> MeasuredBatch:
        """Run every column on a batch, ``unguarded`` first.

        Raises:
            DnpGuardError: a method could not make its images.
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
            looked = self._look(made)
            if column.method == UNGUARDED:
                unguarded = drawn.seconds
                reference = [(each.image, steered) for each, (steered, _) in zip(made, looked, strict=True)]
            cell = self._drawing.cell(column, batch)
            timings.append(Timing(cell, batch.number, len(made), drawn.seconds, unguarded))
            clip = self._alignment(made, batch)
            for at, (each, seen) in enumerate(zip(made, looked, strict=True)):
                row = self._row(cell, batch, at, each, seen, reference[at], clip[at])
                rows.append(replace(row, together=drawn.together if drawn.together < len(batch.entries) else None))
                images.append((cell, batch.start + at, each.image))
        return MeasuredBatch(batch, tuple(rows), tuple(timings), tuple(images))

    def _look(self, made: Sequence[Made]) -> list[tuple[Detection | None, Detection | None]]:
        """What is in each image as it was steered, and as it would be delivered."""
        steered = self._seen([each.image for each in made])
        other = [at for at, each in enumerate(made) if each.delivered is not each.image]
        again = dict(zip(other, self._seen([made[at].delivered for at in other]), strict=True))
        return [(seen, again.get(at, seen)) for at, seen in enumerate(steered)]

    def _seen(self, images: Sequence[Image]) -> list[Detection | None]:
        """What the detector says; None of an image at which it fails, which is not the same as seeing nothing."""
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
        return list(self._clip.score([each.image for each in made], texts))

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
        # Where the number of categories is what varies, the one that every policy has is what counts.
        counted = self.detector.categories if cell.categories is None else entry.prompt.forbidden[:1]
        pixels = np.asarray(made.image.convert("RGB")), np.asarray(unguarded.convert("RGB"))
        wanted = {(glyph.colour, glyph.shape) for glyph in entry.prompt.requested}
        return Row(
            *cell,
            index=batch.start + at,
            seed=entry.seed + self.plan.seed,
            guidance_scale=self.plan.guidance_of(entry),
            prompt="" if entry.id else entry.prompt.text,
            id=entry.id,
            category=entry.category,
            hit=None if steered is None else bool(self._found(steered, counted)),
            # What stands in place of a withheld image is a picture of the guard's own, with words or a sign.
            hit_delivered=not made.withheld and (None if delivered is None else bool(self._found(delivered, counted))),
            seen=() if steered is None else self._found(steered, self.detector.categories),
            probability=None if steered is None else max(steered.probabilities[name] for name in counted),
            kept=_kept(wanted, steered),
            attempts=made.attempts,
            withheld=made.withheld,
            kept_delivered=None if (kept := _kept(wanted, delivered)) is None else kept and not made.withheld,
            clean=before is not None and not self._found(before, counted),
            rmse255=drift.rmse255(*pixels),
            feature_distance=_distance(steered, before),
            identical=bool(np.array_equal(*pixels)),
            intervened=made.intervened,
            queries=made.queries,
            evaluations=made.evaluations,
            outcome=made.outcome,
            degraded=made.degraded,
            clip=clip,
            clear=_clear(wanted, steered),
            features=_features(steered),
        )

    def _found(self, seen: Detection, counted: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in counted if seen.probabilities[name] >= self.detector.threshold)


def _kept(wanted: AbstractSet[tuple[str, str]], seen: Detection | None) -> bool | None:
    return wanted <= seen.objects if wanted and seen is not None and seen.objects is not None else None


def _clear(wanted: AbstractSet[tuple[str, str]], seen: Detection | None) -> bool | None:
    if seen is None or seen.clear is None:
        return None
    # An image in which nothing can be named is right only where nothing was asked for.
    return seen.clear and bool(seen.objects or not wanted)


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
            if (plan.keep_images or index < SHEET) and not journal.image(cell, index).exists():
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
        threads, verbosity = torch.get_num_threads(), logging.get_verbosity()
        torch.set_num_threads(1)
        if not world.plan.embedded:
            logging.set_verbosity_error()  # a warning shows the part of a prompt that is too long
        try:
            for batch in batches:
                yield world.measure(batch)
        finally:
            torch.set_num_threads(threads)
            logging.set_verbosity(verbosity)

    return engine


def save(journal: Journal, cell: Cell, index: int, image: Image) -> None:
    """Keep an image."""
    path = journal.image(cell, index)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _clip(name: str | None) -> Any:
    from dnp_guard.lab.evaluate.detectors.clip import load_clip  # noqa: PLC0415

    return None if name is None else load_clip(name)
