"""Let one request of an engine ask for more than the policy in force: by the argument ``dnp_guard``, never for less."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import RequestRefused, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dnp_guard.guard import Guard
    from dnp_guard.policy import Policy

KEY = "dnp_guard"
"""The extra argument of a request."""
_KEYS = ("policy", "region", "surface")


def of(arguments: Any) -> Any:
    """Read what the extra arguments of a request ask of the guard; None for nothing."""
    return arguments.get(KEY) if isinstance(arguments, dict) else None


def tightened(guard: Guard, named: Mapping[str, Policy], wanted: Any) -> ExitStack:
    """Guard the generations of a ``with`` block as a request asks.

    Args:
        guard: of the worker.
        named: the policies that requests may name.
        wanted: ``{"policy": NAME, "region": …, "surface": …}``, each optional; None for nothing.

    Raises:
        RequestRefused: it is not of this form, or names a policy that is not offered.
        PolicyError: nothing is for this region and surface.
    """
    stack = ExitStack()
    if wanted is None:
        return stack
    if not isinstance(wanted, dict) or not all(isinstance(value, str) for value in wanted.values()):
        raise RequestRefused(f"{KEY} of a request is not of texts by name", hint=f"Give {', '.join(_KEYS)}.")
    if unknown := sorted(set(wanted) - set(_KEYS)):
        raise RequestRefused(f"{KEY} of a request has no {unknown[0]!r}", hint=did_you_mean(unknown[0], list(_KEYS)))
    name = wanted.get("policy")
    if name is not None and name not in named:
        offered = ", ".join(sorted(named)) or "none"
        raise RequestRefused(f"requests cannot name policy {name!r}", hint=f"Policies that they can: {offered}.")
    policy = named[name] if name is not None else None
    stack.enter_context(guard.tightened(policy, region=wanted.get("region"), surface=wanted.get("surface")))
    return stack
