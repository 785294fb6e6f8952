"""A safety guard for image generation: dynamic VLM-guided negative prompting during denoising."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dnp_guard._version import __version__

if TYPE_CHECKING:
    from dnp_guard.errors import CannotSteer, DnpGuardError, PolicyError, RequestRefused, VlmError
    from dnp_guard.guard import Guard
    from dnp_guard.hookspecs import hookimpl
    from dnp_guard.policy import Policy, load_policy
    from dnp_guard.types import Action, Decision, Outcome, Report

__all__ = [
    "Action",
    "CannotSteer",
    "Decision",
    "DnpGuardError",
    "Guard",
    "Outcome",
    "Policy",
    "PolicyError",
    "Report",
    "RequestRefused",
    "VlmError",
    "__version__",
    "hookimpl",
    "load_policy",
]

_HOMES = {
    "dnp_guard.errors": ("CannotSteer", "DnpGuardError", "PolicyError", "RequestRefused", "VlmError"),
    "dnp_guard.guard": ("Guard",),
    "dnp_guard.hookspecs": ("hookimpl",),
    "dnp_guard.policy": ("Policy", "load_policy"),
    "dnp_guard.types": ("Action", "Decision", "Outcome", "Report"),
}
"""Modules of the public names, imported on first use, since hosts import this package at every start."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = globals()[name] = getattr(import_module(module), name)
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
