"""List the callers that a store tells apart by tenant, region and surface, and check their policies. Pure."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from dnp_guard.errors import PolicyError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from dnp_guard.policy.force.store import Store
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.scope import Select

Caller = tuple[str | None, str | None, str | None]
"""A tenant, a region and a surface; None for an unknown one."""


def is_store(store: Store) -> bool:
    """Return whether a folder's policies belong together: one is the floor for everyone, or some select callers."""
    return store.floor is not None or any(policy.select for policy in store.all)


def callers(store: Store) -> Iterator[Caller]:
    """Yield example callers for every combination of policies and exceptions.

    The first caller has no tenant, region or surface.
    """
    named = [policy.select for policy in store.policies if policy.select]
    excepted = [e.tenant for policy in store.all for e in policy.exceptions or () if e.tenant is not None]
    tenants = _unlike(named, lambda select: select.tenants, also=excepted)
    regions = _unlike(named, lambda select: select.regions)
    surfaces = _unlike(named, lambda select: select.surfaces)
    yield from product(tenants, regions, surfaces)


def _unlike(
    selects: list[Select], of: Callable[[Select], tuple[str, ...]], also: Iterable[str] = ()
) -> list[str | None]:
    """Return example names of one kind: None, those in ``also``, and one per group that selects the same policies.

    Args:
        selects: the callers that the policies are for.
        of: reads the names of one kind, such as the tenants.
        also: names that need an example of their own.
    """
    groups: dict[object, str] = {}
    for select in selects:
        for name in of(select):
            groups.setdefault(tuple(name in of(other) for other in selects), name)
    return [None, *dict.fromkeys([*also, *groups.values()])]


def faults(store: Store, folder: str, at: datetime) -> Iterator[Problem]:
    """Yield the problems of callers who get no policy because their policies cannot be merged.

    Args:
        store: the store.
        folder: path that the problems name.
        at: time at which exceptions apply.
    """
    reported = set[str]()
    for caller in callers(store):
        try:
            store.select(*caller, at=at)
        except PolicyError as error:
            (problem,) = error.problems
            if problem.code != "no-policy" and problem.message not in reported:  # a caller without a policy is a choice
                reported.add(problem.message)
                message = f"{_whom(caller)}: {problem.message}"
                yield Problem(folder, 0, 0, problem.code, message, problem.hint)


def never_in_shadow(store: Store) -> Iterator[tuple[Policy, str, Policy]]:
    """Find the categories in shadow mode that another policy enforces for every caller whom they apply to.

    Yields:
        The policy in shadow, the id of the category, and the policy that enforces it.
    """
    chosen = [store.chosen(*caller) for caller in callers(store)]
    for policy in store.all:
        beside = [[other for other in policies if other is not policy] for policies in chosen if policy in policies]
        for category in policy.categories:
            if not policy.shadow(category.id) or not beside:
                continue
            enforcing = [
                next((other for other in policies if _enforces(other, category.id)), None) for policies in beside
            ]
            if all(enforcing) and enforcing[0] is not None:
                yield policy, category.id, enforcing[0]


def _enforces(policy: Policy, category: str) -> bool:
    return any(candidate.id == category for candidate in policy.categories) and not policy.shadow(category)


def _whom(caller: Caller) -> str:
    kinds = ("tenant", "region", "surface")
    named = [f"{kind} {value!r}" for kind, value in zip(kinds, caller, strict=True) if value is not None]
    return f"for {', '.join(named) or 'everyone'}"
