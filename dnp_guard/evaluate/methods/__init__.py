"""The methods of the comparison, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError
from dnp_guard.evaluate.methods.base import Made, Method, Task
from dnp_guard.evaluate.methods.guarded import Guarded, whole_list
from dnp_guard.evaluate.methods.unguarded import Unguarded
from dnp_guard.policy import load_policy
from dnp_guard.policy.suggest import did_you_mean

if TYPE_CHECKING:
    from dnp_guard.policy import Policy

__all__ = ["METHODS", "Made", "Method", "Task", "method"]

METHODS = ("unguarded", "dnp-guard", "dnp-guard-whole-list")
"""All names, in the order of the table."""


def method(name: str, *, scale: float | None = None, policy: Policy | None = None) -> Method:
    """Find a method.

    Args:
        name: one of :data:`METHODS`.
        scale: of its negative, in place of its own.
        policy: of the guard's methods, in place of the shipped ``glyphs``.

    Raises:
        DnpGuardError: there is no such method.
    """
    if name == "unguarded":
        return Unguarded()
    if name == "dnp-guard":
        return Guarded(policy=policy, scale=scale)
    if name == "dnp-guard-whole-list":
        return Guarded(name, policy=whole_list(policy or load_policy("glyphs")), scale=scale)
    raise DnpGuardError(f"there is no method {name!r}", hint=did_you_mean(name, METHODS))
