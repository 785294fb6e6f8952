"""Guard vLLM-Omni: the diffusers pipeline that ``--diffusion-load-format diffusers`` wraps, or one of its own."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.hosts.engines import attestation, tightening
from dnp_guard.hosts.engines.worker import Worker, guard_class
from dnp_guard.hosts.importing import after_import

if TYPE_CHECKING:
    from types import ModuleType

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.engines.worker import Make
    from dnp_guard.types import Report

NAME = "vllm-omni"
RUNNER = "vllm_omni.diffusion.worker.diffusion_model_runner"
"""Module whose class loads and runs a worker's model."""
ENGINE = "vllm_omni.diffusion.diffusion_engine"
"""Module whose class turns a worker's outputs into results for clients, in a process of its own."""
_ADAPTER = "DiffusersAdapterPipeline"
_NOTE = "_dnp_guard"
"""Attribute of a worker's output that holds the guard's note; it also marks the method that reads the note."""
_RUNS = ("execute_model", "execute_model_batch", "execute_stepwise")


def register(make: Make) -> None:
    """Guard or refuse every model that this process loads, and make its results report the policy in force.

    Args:
        make: makes the guard from the settings.
    """
    after_import(RUNNER, partial(_put, make))
    after_import(ENGINE, _report)


def _put(make: Make, module: ModuleType) -> None:
    """Patch the engine's runner class: it attaches the guard after it loads a model, and runs nothing without one.

    Raises:
        AttributeError: the class lacks a method to patch.
    """
    guard_class(Worker(NAME, make), module.DiffusionModelRunner, "load_model", _RUNS, _attach)


def _attach(worker: Worker, model: Any, guard: Guard) -> None:
    """Guard a diffusers pipeline inside its adapter, or an engine's own, and let every request make the guard stricter.

    Raises:
        CannotSteer: the pipeline cannot be steered, or not as the engine is configured.
    """
    if any(kind.__name__ == _ADAPTER for kind in type(model).__mro__):
        guard.attach(model._pipeline)  # noqa: SLF001 (the adapter has no public name for it)
    else:
        from dnp_guard.hosts.engines.vllm_omni_pipeline import attach  # noqa: PLC0415 (imports torch)

        worker.ranks = attach(model, guard)
    forward = model.forward

    @wraps(forward)
    def guarded(batch: Any) -> Any:
        with ExitStack() as stack:

            def tighten() -> None:
                demands = [tightening.of(request.sampling_params.extra_args) for request in batch.requests]
                tightening.check_together(demands)
                for demand in demands:  # together they get the strictest of their policies
                    stack.enter_context(worker.tightened(demand))

            worker.agree([getattr(request, "request_id", "") for request in batch.requests], tighten)
            before = guard.last
            result = forward(batch)
            report = guard.last  # names the policy that applied, which a reload may have replaced since
            if report is not None and report is not before:
                _note(result, report)
            return result

    model.forward = guarded


def _note(result: Any, report: Report) -> None:
    """Attach a note to the output of every request: the guard and policy in force, and the outcomes of its images."""
    outputs = result if isinstance(result, list) else [result]
    per = len(report.images) // len(outputs)
    for index, output in enumerate(outputs):
        images = report.images[index * per : (index + 1) * per]
        outcomes = [image.decision.value for image in images]
        note = {"in_force": attestation.in_force(report), "request": report.request, "outcomes": outcomes}
        setattr(output, _NOTE, note)


def _report(module: ModuleType) -> None:
    """Pass the note on a worker's output on to the engine's clients, as ``custom_output["dnp_guard"]``."""
    formatted = module.DiffusionEngine.postprocess_output
    if hasattr(formatted, _NOTE):
        return  # a process may load its plugins again

    @wraps(formatted)
    def reported(self: Any, request: Any, output: Any) -> Any:
        results = formatted(self, request, output)
        if (note := getattr(output, _NOTE, None)) is not None:
            for result in results:
                result.custom_output = {**result.custom_output, tightening.KEY: note}
        return results

    setattr(reported, _NOTE, True)
    module.DiffusionEngine.postprocess_output = reported
