"""The built-in plugin that attaches a guard to diffusers pipelines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dnp_guard.guard import Guard


@hookimpl
def dnp_guard_attach(guard: Guard, target: Any) -> Callable[[], None] | None:
    """Attach a guard to a pipeline, ordinary or modular, and return a function that detaches it; None for others."""
    if not any(isinstance(target, kind) for kind in _kinds()):
        return None
    from dnp_guard.hosts.diffusers.attach import attach  # noqa: PLC0415 (imports diffusers)

    return attach(target, guard)


def _kinds() -> Iterator[type]:
    for module, name in (
        ("diffusers.pipelines.pipeline_utils", "DiffusionPipeline"),
        ("diffusers.modular_pipelines.modular_pipeline", "ModularPipeline"),
    ):
        if module in sys.modules:
            yield getattr(sys.modules[module], name)
