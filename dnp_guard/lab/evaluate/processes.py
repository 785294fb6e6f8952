"""Spread the batches of a run over processes of this machine; the rows are those of one process."""

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
"""The one of a worker process; empty in any other."""


def in_processes(
    plan: EvaluationPlan, workers: int, plugins: Sequence[str] = (), folder: Path | None = None
) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    """The engine of several processes, each on one thread, with models of its own.

    Args:
        plan: of the run.
        workers: how many, at most one a batch.
        plugins: names of installed plugins that may know the detector.
        folder: where drawn images are kept and found again.
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
    """End when the run is killed; a worker would wait for its next batch for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure(batch: Batch) -> MeasuredBatch:
    (measured,) = here(_worlds[0])([batch])
    return measured
