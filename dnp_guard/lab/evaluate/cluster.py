"""Spread the batches of a run over a Ray cluster (extra ``ray``); apart from timings, results are as in one process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.errors import DnpGuardError
from dnp_guard.extras import needs
from dnp_guard.lab.evaluate.runner import World, here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dnp_guard.lab.evaluate.design import Batch, EvaluationPlan
    from dnp_guard.lab.evaluate.runner import MeasuredBatch

_USAGE = "RAY_USAGE_STATS_ENABLED"
"""Environment variable; Ray reports its use to its makers unless it is 0."""


def on_ray(
    plan: EvaluationPlan, address: str | None, plugins: Sequence[str] = (), workers: int | None = None
) -> Callable[[Sequence[Batch]], Iterator[MeasuredBatch]]:
    """Return the function that measures batches on a Ray cluster.

    Every worker of the cluster loads its own models, on its own GPU or processor.

    Args:
        plan: plan of the run.
        address: address of a running cluster, such as ``auto`` or ``ray://host:10001``; None to start one here.
        plugins: names of installed plugins that may provide the detector.
        workers: number of workers; None for the number of GPUs of the cluster, or of processors if it has none.

    Returns:
        A function that measures batches and yields the results in their order.

    Raises:
        MissingExtra: if Ray is not installed.
        DnpGuardError: when the returned function runs, if the cluster cannot be reached or a worker fails.
    """
    ray = _ray()

    def engine(batches: Sequence[Batch]) -> Iterator[MeasuredBatch]:
        if not batches:
            return
        _connect(ray, address)
        try:
            resources = ray.cluster_resources()
            gpus = int(resources.get("GPU", 0))
            count = min(workers or gpus or int(resources.get("CPU", 1)), len(batches))
            worker = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_Worker)
            pool = ray.util.ActorPool([worker.remote(plan, tuple(plugins)) for _ in range(count)])
            # `map` returns the results in the order of the batches, whichever worker measured them.
            yield from pool.map(lambda actor, batch: actor.measure.remote(batch), batches)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, DnpGuardError) else error
            raise DnpGuardError(str(getattr(cause, "message", cause)), hint=getattr(cause, "hint", "")) from error
        finally:
            ray.shutdown()

    return engine


class _Worker:
    def __init__(self, plan: EvaluationPlan, plugins: Sequence[str]) -> None:
        torch.set_num_threads(1)
        self._engine = here(World(plan, plugins))

    def measure(self, batch: Batch) -> MeasuredBatch:
        (measured,) = self._engine([batch])
        return measured


def _connect(ray: Any, address: str | None) -> None:
    before = os.environ.get(_USAGE)
    os.environ[_USAGE] = "0"
    try:
        ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise DnpGuardError(f"no Ray cluster at {address!r}: {error}", hint="Check --address.") from error
    finally:
        if before is None:
            del os.environ[_USAGE]
        else:
            os.environ[_USAGE] = before


def _ray() -> Any:
    needs("ray", "--engine ray")
    import ray  # noqa: PLC0415 (an extra)
    import ray.util  # noqa: PLC0415

    return ray
