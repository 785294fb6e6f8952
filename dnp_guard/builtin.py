"""The plugins that the package itself brings."""

from __future__ import annotations

from dnp_guard.audit.write import plugin as audit
from dnp_guard.hosts.diffusers import plugin as diffusers
from dnp_guard.hosts.kdiffusion import plugin as kdiffusion
from dnp_guard.vlm import plugin as vlm


def builtin() -> tuple[object, ...]:
    """Hosts, backends and audit sinks, which are asked after every plugin that a guard allows."""
    return diffusers, kdiffusion, vlm, audit
