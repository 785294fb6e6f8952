"""vLLM-Omni: guard the diffusers pipeline that ``--diffusion-load-format diffusers`` wraps, and refuse other models.

vLLM-Omni's own pipelines are refused: they put classifier-free guidance together themselves, in parallel over ranks and
step by step for many requests at once, where no negative of this guard is applied.
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
"""The module whose class loads a worker's model and runs it."""
_ADAPTER = "DiffusersAdapterPipeline"
_RUNS = ("execute_model", "execute_model_batch", "execute_stepwise")


def register(make: Make) -> None:
    """Have every model that this process loads guarded, or refused.

    Args:
        make: makes the guard that the settings describe.
    """
    after_import(RUNNER, partial(_put, make))


def _put(make: Make, module: ModuleType) -> None:
    """Let a runner generate only what is guarded; raises where it has changed, and so ends the worker."""
    guard_class(Worker(NAME, make), module.DiffusionModelRunner, "load_model", _RUNS, _attach)


def _attach(worker: Worker, model: Any, guard: Guard) -> None:
    """Guard the pipeline inside of an adapter, as each request asks.

    Raises:
        CannotSteer: it is a pipeline of vLLM-Omni's own, or one that cannot be steered.
    """
    if not any(kind.__name__ == _ADAPTER for kind in type(model).__mro__):
        raise CannotSteer(
            f"{type(model).__name__} is a pipeline of vLLM-Omni's own, in which no negative can take effect",
            hint="Serve the model with --diffusion-load-format diffusers.",
        )
    guard.attach(model._pipeline)  # noqa: SLF001 (the adapter has no other name for it)
    forward = model.forward

    @wraps(forward)
    def guarded(batch: Any) -> Any:
        with ExitStack() as stack:
            for request in batch.requests:  # of several that are drawn together, the strictest of all
                stack.enter_context(worker.tightened(asked.of(request.sampling_params.extra_args)))
            return forward(batch)

    model.forward = guarded
