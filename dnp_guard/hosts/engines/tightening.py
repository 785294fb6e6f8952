"""Let a request to an engine tighten the policy in force, by its argument ``dnp_guard``; it cannot loosen it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import RequestRefused, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from dnp_guard.guard import Guard
    from dnp_guard.policy import Policy

KEY = "dnp_guard"
"""Name of the extra argument of a request."""
_PLACE = ("region", "surface")
_KEYS = ("policy", *_PLACE)


def of(arguments: Any) -> Any:
    """Return a request's demands on the guard, from its extra arguments; None if there are none.

    Raises:
        RequestRefused: the extra arguments are not a dictionary.
    """
    if arguments is None:
        return None
    if not isinstance(arguments, dict):
        raise RequestRefused("the extra arguments of a request are no dictionary", hint="Give them by name.")
    return arguments.get(KEY)


def check_together(demands: Sequence[Any]) -> None:
    """Check that the requests of one batch name the same region and surface, because these select the batch's policy.

    Args:
        demands: demands of every request, as :func:`of` returns them.

    Raises:
        RequestRefused: the regions or the surfaces differ.
    """
    places = [tuple(map(demand.get, _PLACE)) if isinstance(demand, dict) else (None, None) for demand in demands]
    if any(place != places[0] for place in places):
        raise RequestRefused(
            f"requests of one batch differ in {' or '.join(_PLACE)} of their {KEY}",
            hint="Send them one by one, or with the same region and surface.",
        )


def tightened(guard: Guard, named: Mapping[str, Policy], demands: Any) -> AbstractContextManager[object]:
    """Tighten the guard for the generations in a ``with`` block, as a request demands.

    Args:
        guard: guard of the worker.
        named: the policies that requests may name, by name.
        demands: ``{"policy": NAME, "region": …, "surface": …}``, all optional; None for no demands.

    Raises:
        RequestRefused: the demands have another form, or name a policy that requests may not name.
        PolicyError: no policy is for this region and surface.
    """
    if demands is None:
        return nullcontext()
    if not isinstance(demands, dict) or not all(isinstance(value, str) for value in demands.values()):
        raise RequestRefused(f"{KEY} of a request is no mapping of names to texts", hint=f"Give {', '.join(_KEYS)}.")
    if unknown := sorted(set(demands) - set(_KEYS)):
        raise RequestRefused(f"{KEY} of a request has no {unknown[0]!r}", hint=did_you_mean(unknown[0], list(_KEYS)))
    name = demands.get("policy")
    if name is not None and name not in named:
        offered = ", ".join(sorted(named)) or "none"
        raise RequestRefused(f"requests cannot name policy {name!r}", hint=f"Policies that they can name: {offered}.")
    policy = named[name] if name is not None else None
    return guard.tightened(policy, region=demands.get("region"), surface=demands.get("surface"))
