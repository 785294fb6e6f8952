"""The built-in plugin that attaches a guard to a :class:`~dnp_guard.hosts.kdiffusion.target.KDiffusion`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dnp_guard.hookspecs import hookimpl
from dnp_guard.hosts.attachments import attached

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.guard import Guard


@hookimpl
def dnp_guard_attach(guard: Guard, target: Any) -> Callable[[], None] | None:
    """Attach a guard to a ``KDiffusion``, and return a function that detaches it; None for any other target."""
    module = sys.modules.get("dnp_guard.hosts.kdiffusion.target")
    if module is None or not isinstance(target, module.KDiffusion):
        return None
    return attached(target, guard, lambda: target.guard, target.guarded_by)
