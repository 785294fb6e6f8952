"""The plugins of the package itself."""

from __future__ import annotations

from dnp_guard.audit.write import plugin as audit
from dnp_guard.hosts.diffusers import plugin as diffusers
from dnp_guard.hosts.kdiffusion import plugin as kdiffusion
from dnp_guard.vlm import plugin as vlm


def builtin() -> tuple[object, ...]:
    """Return the plugins for hosts, backends and audit sinks; their hooks run after those of allowed plugins."""
    return diffusers, kdiffusion, vlm, audit
