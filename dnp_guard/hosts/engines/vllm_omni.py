"""vLLM-Omni: guard the diffusers pipeline that ``--diffusion-load-format diffusers`` wraps, and refuse other models.

vLLM-Omni's own pipelines are refused: they implement classifier-free guidance themselves, in parallel over ranks and
step by step for many requests at once, where this guard cannot apply a negative.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines import asked
from dnp_guard.hosts.engines.worker import Worker, guard_class
from dnp_guard.hosts.importing import after_import

if TYPE_CHECKING:
    from types import ModuleType

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.worker import Make

NAME = "vllm-omni"
RUNNER = "vllm_omni.diffusion.worker.diffusion_model_runner"
"""Module whose class loads and runs a worker's model."""
_ADAPTER = "DiffusersAdapterPipeline"
_RUNS = ("execute_model", "execute_model_batch", "execute_stepwise")


def register(make: Make) -> None:
    """Guard or refuse every model that this process loads.

    Args:
        make: makes the guard from the settings.
    """
    after_import(RUNNER, partial(_put, make))


def _put(make: Make, module: ModuleType) -> None:
    """Check every run of a runner; raise if the runner has changed, which ends the worker."""
    guard_class(Worker(NAME, make), module.DiffusionModelRunner, "load_model", _RUNS, _attach)


def _attach(worker: Worker, model: Any, guard: Guard) -> None:
    """Guard the pipeline inside an adapter, as strictly as the requests ask.

    Raises:
        CannotSteer: it is one of vLLM-Omni's own pipelines, or cannot be steered.
    """
    if not any(kind.__name__ == _ADAPTER for kind in type(model).__mro__):
        raise CannotSteer(
            f"{type(model).__name__} is a pipeline of vLLM-Omni's own, in which no negative can take effect",
            hint="Serve the model with --diffusion-load-format diffusers.",
        )
    guard.attach(model._pipeline)  # noqa: SLF001 (the adapter has no public name for it)
    forward = model.forward

    @wraps(forward)
    def guarded(batch: Any) -> Any:
        demands = [asked.of(request.sampling_params.extra_args) for request in batch.requests]
        asked.check_together(demands)
        with ExitStack() as stack:
            for demand in demands:  # together they get the strictest of their policies
                stack.enter_context(worker.tightened(demand))
            return forward(batch)

    model.forward = guarded
