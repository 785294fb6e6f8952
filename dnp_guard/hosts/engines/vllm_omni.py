"""vLLM-Omni: guard the diffusers pipeline that ``--diffusion-load-format diffusers`` wraps, and refuse other models.

vLLM-Omni's own pipelines are refused: they put classifier-free guidance together themselves, in parallel over ranks and
step by step for many requests at once, where no negative of this guard is applied.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines.worker import Worker
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
_GUARDED = "_dnp_guard_worker"


def register(make: Make) -> None:
    """Have every model that this process loads guarded, or refused.

    Args:
        make: makes the guard that the settings describe.
    """
    after_import(RUNNER, partial(_put, make))


def _put(make: Make, module: ModuleType) -> None:
    """Let a runner generate only what is guarded; raises where it has changed, and so ends the worker."""
    runner: Any = module.DiffusionModelRunner
    if _GUARDED in runner.__dict__:
        return  # a process may load its plugins again
    worker = Worker(NAME, make)
    for name in _RUNS:
        setattr(runner, name, _checked(worker, getattr(runner, name)))
    runner.load_model = _loading(worker, runner.load_model)
    setattr(runner, _GUARDED, worker)


def _loading(worker: Worker, load_model: Any) -> Any:
    @wraps(load_model)
    def loading(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = load_model(self, *args, **kwargs)
        if getattr(self, "pipeline", None) is not None:  # one that is loaded later, for a pipeline of the user's own
            worker.take(partial(_attach, self.pipeline))
        return result

    return loading


def _checked(worker: Worker, run: Any) -> Any:
    @wraps(run)
    def checked(self: Any, *args: Any, **kwargs: Any) -> Any:
        worker.check()
        return run(self, *args, **kwargs)

    return checked


def _attach(model: Any, guard: Guard) -> None:
    """Guard the pipeline inside of an adapter.

    Raises:
        CannotSteer: it is a pipeline of vLLM-Omni's own, or one that cannot be steered.
    """
    if not any(kind.__name__ == _ADAPTER for kind in type(model).__mro__):
        raise CannotSteer(
            f"{type(model).__name__} is a pipeline of vLLM-Omni's own, in which no negative can take effect",
            hint="Serve the model with --diffusion-load-format diffusers.",
        )
    guard.attach(model._pipeline)  # noqa: SLF001 (the adapter has no other name for it)
