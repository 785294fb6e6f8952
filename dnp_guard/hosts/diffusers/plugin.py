"""The built-in plugin that attaches a guard to diffusers pipelines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dnp_guard.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.guard import Guard


@hookimpl
def dnp_guard_attach(guard: Guard, target: Any) -> Callable[[], None] | None:
    """Attach to a ``DiffusionPipeline``; nothing can be one while diffusers is not imported."""
    module = sys.modules.get("diffusers.pipelines.pipeline_utils")
    if module is None or not isinstance(target, module.DiffusionPipeline):
        return None
    from dnp_guard.hosts.diffusers.attach import attach  # noqa: PLC0415 (imports diffusers)

    return attach(target, guard)
