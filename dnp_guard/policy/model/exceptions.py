"""A policy with its temporary exceptions applied. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy.model.policy import Policy

if TYPE_CHECKING:
    from datetime import datetime


def with_exceptions(policy: Policy, tenant: str | None, at: datetime) -> Policy:
    """Apply a policy's exceptions for a tenant at a given time, and drop ``select``, ``exceptions`` and ``floor``."""
    if (policy.select, policy.exceptions, policy.floor) == (None, None, None):
        return policy
    data = policy.resolved()
    for exception in policy.exceptions or ():
        if exception.applies(tenant, at):
            index = [category.id for category in policy.categories].index(exception.category)
            changed = exception.set.model_dump(mode="json", exclude_none=True)
            if "threshold" in changed:  # also the default of the final look
                changed.setdefault("final_threshold", changed["threshold"])
            data["categories"][index] |= changed
    for key in ("select", "exceptions", "floor"):
        data.pop(key, None)
    return Policy.model_validate(data)
