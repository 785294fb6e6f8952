"""A policy with what is set otherwise for a while. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy.model.policy import Policy

if TYPE_CHECKING:
    from datetime import datetime


def with_exceptions(policy: Policy, tenant: str | None, at: datetime) -> Policy:
    """The policy as it is for a tenant at a time: exceptions applied, and nothing left that is about its roll-out."""
    if (policy.select, policy.exceptions, policy.floor) == (None, None, None):
        return policy
    data = policy.resolved()
    for exception in policy.exceptions or ():
        if exception.applies(tenant, at):
            index = [category.id for category in policy.categories].index(exception.category)
            changed = exception.set.model_dump(mode="json", exclude_none=True)
            if "threshold" in changed:  # of the final look too, unless it says otherwise
                changed.setdefault("final_threshold", changed["threshold"])
            data["categories"][index] |= changed
    for key in ("select", "exceptions", "floor"):
        data.pop(key, None)
    return Policy.model_validate(data)
