"""Generate the images of a plan's batches by every method, as many at once as the memory allows."""

from __future__ import annotations

import gc
from collections import defaultdict
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from dnp_guard.errors import DnpGuardError
from dnp_guard.lab.evaluate import kept_images
from dnp_guard.lab.evaluate.clock import now
from dnp_guard.lab.evaluate.design import GUARDED, categories_from, restricted
from dnp_guard.lab.evaluate.journal import image_file
from dnp_guard.lab.evaluate.kept_images import DrawnBatch
from dnp_guard.lab.evaluate.methods import Task, method
from dnp_guard.lab.evaluate.model import load
from dnp_guard.lab.evaluate.rows import Cell

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.lab.evaluate.design import Batch, Column, EvaluationPlan
    from dnp_guard.lab.evaluate.methods import Made, Method
    from dnp_guard.lab.evaluate.prompt_sets import Entry

_WARM_STEPS = 6


class Drawing:
    """A pipeline and the methods that generate images with it, loaded once per process.

    Args:
        plan: plan of the run.
        categories: categories of the detector; with an embedded model, static negative prompts name them.
        folder: folder in which generated images are kept and found again; None to generate every batch.
    """

    def __init__(self, plan: EvaluationPlan, categories: tuple[str, ...], folder: Path | None) -> None:
        self.plan, self._categories = plan, categories
        self._names = categories if plan.embedded else tuple(plan.terms)
        self._folder = Path(plan.judged_from) if plan.judged_from else folder
        self._oracle = _network() if plan.embedded else None
        self._methods: dict[tuple[Column, tuple[str, ...]], Method] = {}
        self._most: dict[Column, int] = {}
        self._warm: set[Column] = set()

    @cached_property
    def pipe(self) -> Any:
        """The pipeline, loaded at its first use; a run whose images are all in the folder never loads it."""
        return load(self.plan.model, self.plan.sampler)

    def drawn(self, column: Column, batch: Batch) -> DrawnBatch:
        """Return a method's images of a batch, from the folder if all of them are there; else generate them.

        Raises:
            DnpGuardError: if the images cannot be generated, or if the plan judges another run's images and that run
                does not have them.
        """
        for names in self._concepts(column, batch):
            self._method(column, names)  # `cell` reads its name and scale
        image = None if self._folder is None else partial(image_file, self._folder, self.cell(column, batch))
        earlier = None if image is None else kept_images.kept(image, batch.start, len(batch.entries))
        if earlier is None and self.plan.judged_from:
            raise DnpGuardError(
                f"{self.plan.judged_from} does not hold {_called(column)} on {batch.set} from prompt {batch.start} on",
                hint="Finish that run, or give its methods, prompts and --batch. A run on Ray keeps no images.",
            )
        if earlier is not None:
            return earlier
        self._warm_up(column, batch)
        begin = now(self.pipe.device.type)
        made = self._make(column, batch)
        drawn = DrawnBatch(made, now(self.pipe.device.type) - begin, self._most.get(column, len(batch.entries)))
        if image is not None:
            kept_images.keep(image, batch.start, drawn)
        return drawn

    def _warm_up(self, column: Column, batch: Batch) -> None:
        """Run a method once on one prompt, so that its first timing does not include loading and importing."""
        if column not in self._warm:
            one = replace(batch, entries=batch.entries[:1])
            self._make(column, one, min(_WARM_STEPS, self.plan.steps))
            self._warm.add(column)

    def _concepts(self, column: Column, batch: Batch) -> list[tuple[str, ...]]:
        """Return, per prompt, the concepts that static negative prompts and the policy name."""
        if column.categories is None:
            return [self._names] * len(batch.entries)
        return [
            categories_from(entry.prompt.forbidden[0], column.categories, self._categories) for entry in batch.entries
        ]

    def _make(self, column: Column, batch: Batch, steps: int | None = None) -> list[Made]:
        made: dict[int, Made] = {}
        together: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for at, names in enumerate(self._concepts(column, batch)):
            together[names].append(at)
        for names, places in together.items():
            entries = [batch.entries[at] for at in places]
            try:
                done = self._as_many_as_fit(column, names, entries, steps or self.plan.steps)
            except Exception as error:
                last = batch.start + len(batch.entries) - 1
                raise DnpGuardError(
                    f"{_called(column)} on {batch.set}, prompts {batch.start} to {last}: {error}",
                    hint="The batches before it are kept; the same command continues from there.",
                ) from error
            made.update(zip(places, done, strict=True))
        return [made[at] for at in range(len(batch.entries))]

    def _as_many_as_fit(
        self, column: Column, names: tuple[str, ...], entries: Sequence[Entry], steps: int
    ) -> list[Made]:
        """Generate images; whenever memory runs out, halve the number that is generated at once."""
        most = min(self._most.get(column, len(entries)), len(entries))
        made: list[Made] = []
        while len(made) < len(entries):
            part = entries[len(made) : len(made) + most]
            try:
                made += self._together(column, names, part, steps)
            except (torch.OutOfMemoryError, MemoryError):
                if len(part) == 1:
                    raise
                self._most[column] = most = len(part) // 2
            else:
                continue
            gc.collect()  # outside the handler, whose traceback keeps the tensors alive
            torch.cuda.empty_cache()
        return made

    def _together(self, column: Column, names: tuple[str, ...], entries: Sequence[Entry], steps: int) -> list[Made]:
        guidance, pictures = self.plan.guidance_of(entries[0]), tuple(_picture(entry) for entry in entries)
        task = Task(
            self.pipe,
            steps,
            guidance,
            names,
            self._oracle,
            vlm=self.plan.vlm,
            questions=self.plan.terms,
            pictures=tuple(picture for picture in pictures if picture is not None),
        )
        seeds = [entry.seed + self.plan.seed for entry in entries]
        return self._method(column, names).generate(task, seeds, [entry.prompt for entry in entries])

    def _method(self, column: Column, names: tuple[str, ...]) -> Method:
        key = column, names if column.categories is not None else ()
        if key not in self._methods:
            policy = self.plan.policy if column.categories is None else restricted(self.plan.policy, names)
            guarded = column.method in GUARDED
            self._methods[key] = method(column.method, scale=column.scale, policy=policy if guarded else None)
        return self._methods[key]

    def cell(self, column: Column, batch: Batch) -> Cell:
        """Return the cell (method and prompt set, the key of the results) to which a batch's images belong."""
        known = next(method for (used, _), method in self._methods.items() if used == column)
        return Cell(batch.set, known.name, known.mode, known.scale, column.categories)


def _picture(entry: Entry) -> Image.Image | None:
    if not entry.picture:
        return None
    try:
        with Image.open(entry.picture) as opened:
            return opened.convert("RGB")
    except OSError as error:
        raise DnpGuardError(
            f"{entry.picture}: the picture cannot be read: {error}", hint="Repair the file, or leave the prompt out."
        ) from error


def _called(column: Column) -> str:
    return column.method if column.scale is None else f"{column.method} at scale {column.scale:g}"


def _network() -> Any:
    from dnp_guard.lab.evaluate.detector import load_detector  # noqa: PLC0415

    return load_detector()
