"""Spread the batches of a run over processes of this machine; apart from timings, results are as in one process."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from typing import TYPE_CHECKING

from dnp_guard.lab.evaluate.runner import World, here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.runner import MeasuredBatch

_worlds: list[World] = []
"""The pipeline, detector and methods of a worker process; empty in any other process."""


def in_processes(
    plan: EvaluationPlan, workers: int, plugins: Sequence[str] = (), folder: Path | None = None
) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    """Return the function that measures batches in several processes.

    Every process runs one thread, and loads its own models.

    Args:
        plan: plan of the run.
        workers: number of processes; at most one per batch is started.
        plugins: names of installed plugins that may provide the detector.
        folder: folder in which generated images are kept and found again; None to generate every batch.

    Returns:
        A function that measures batches and yields the results in their order.
    """

    def engine(batches: Sequence[Batch]) -> Iterator[MeasuredBatch]:
        if not batches:
            return
        # A forked process would inherit the threads that torch has already started, and hang.
        count, start = min(workers, len(batches)), get_context("spawn")
        with ProcessPoolExecutor(count, start, initializer=_start, initargs=(plan, tuple(plugins), folder)) as pool:
            yield from pool.map(_measure, batches)

    return engine


def _start(plan: EvaluationPlan, plugins: Sequence[str], folder: Path | None) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worlds.append(World(plan, plugins, folder))


def _leave_with_parent() -> None:
    """End this worker process when the main process ends; else it would wait for its next batch for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(batch: Batch) -> MeasuredBatch:
    (measured,) = here(_worlds[0])([batch])
    return measured
