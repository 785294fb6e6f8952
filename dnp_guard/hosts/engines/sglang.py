"""Guard SGLang-Diffusion: the diffusers pipeline that ``--backend diffusers`` wraps, or the engine's own stages.

A model that cannot be steered is refused when it is loaded: one that several ranks run for one image, one that draws
videos by the engine's own stages, or one with non-standard denoising stages.
"""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.engines import attestation, tightening
from dnp_guard.hosts.engines.middleware import Attested
from dnp_guard.hosts.engines.worker import Worker, guard_class
from dnp_guard.hosts.importing import after_import

if TYPE_CHECKING:
    from types import ModuleType

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.worker import Make

NAME = "sglang"
RUNNER = "sglang.multimodal_gen.runtime.managers.gpu_worker"
"""Module whose class loads and runs a worker's model."""
SERVER = "sglang.multimodal_gen.runtime.launch_server"
"""Module that makes the HTTP server, which has no option for a middleware."""
_RUNS = ("execute_forward", "execute_forward_sequentially")
_ATTESTED = "_dnp_guard_attested"
"""Attribute that marks a function whose HTTP servers have the middleware."""


def register(make: Make) -> None:
    """Guard or refuse every model that this process loads, and make its HTTP server report the policies in force.

    Args:
        make: makes the guard from the settings.
    """
    after_import(RUNNER, partial(_put, make))
    after_import(SERVER, _attest)


def _put(make: Make, module: ModuleType) -> None:
    """Make the engine's worker class check for the guard before every run; raise if the class lacks a method."""
    guard_class(Worker(NAME, make), module.GPUWorker, "init_device_and_model", _RUNS, _attach)


def _attest(module: ModuleType) -> None:
    """Add the guard's middleware to the HTTP server that the engine creates in this process."""
    create = module.create_app
    if hasattr(create, _ATTESTED):
        return  # a process may load its plugins again

    @wraps(create)
    def attested(*args: Any, **kwargs: Any) -> Any:
        app = create(*args, **kwargs)
        app.add_middleware(Attested)
        return app

    setattr(attested, _ATTESTED, True)
    module.create_app = attested  # type: ignore[attr-defined]  # the engine's module has it


def _attach(worker: Worker, pipeline: Any, guard: Guard) -> None:
    """Guard a loaded pipeline, and let every request make the guard stricter.

    Raises:
        CannotSteer: the pipeline cannot be steered, or not with the server's arguments.
    """
    arguments = pipeline.server_args
    if arguments.num_gpus > max(1, arguments.dp_size):
        raise CannotSteer(
            "several GPUs draw one image, and the guard of each would see a part of it",
            hint="Serve with one GPU for each replica: --num-gpus N --dp-size N.",
        )
    if (wrapped := getattr(pipeline, "diffusers_pipe", None)) is None:
        from dnp_guard.hosts.engines.sglang_pipeline import attach  # noqa: PLC0415 (imports torch)

        attach(pipeline, guard)
    elif pipeline._cache_dit_enabled:  # noqa: SLF001 (the engine has no public name for it)
        raise CannotSteer("cache-dit skips parts of steps", hint="Serve without cache-dit.")
    else:
        guard.attach(wrapped)
    forward = pipeline.forward

    @wraps(forward)
    def guarded(batch: Any, server_args: Any) -> Any:
        with worker.tightened(tightening.of(batch.extra.get("diffusers_kwargs"))):
            before = guard.last
            result = forward(batch, server_args)
            report = guard.last  # names the policy that applied, which a reload may have replaced since
            if report is not None and report is not before:
                result.usage = {**(result.usage or {}), tightening.KEY: attestation.in_force(report)}
        return result

    pipeline.forward = guarded
    pipeline.forward_batch = lambda batches, server_args: [guarded(batch, server_args) for batch in batches]
    pipeline.forward_batch_sequentially = lambda batches, server_args: (  # the engine calls `next` on it
        guarded(batch, server_args) for batch in batches
    )
