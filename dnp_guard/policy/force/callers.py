"""Everybody whom a store tells apart, and what is wrong with what they get. Pure."""

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
"""A tenant, a region and a surface; None where it is not known."""


def is_store(store: Store) -> bool:
    """Whether the policies of a folder are for somebody, or under a floor, and not only kept beside each other."""
    return store.floor is not None or any(policy.select for policy in store.all)


def callers(store: Store) -> Iterator[Caller]:
    """One caller for each way in which policies and exceptions can be chosen, those who name nothing first."""
    named = [policy.select for policy in store.policies if policy.select]
    excepted = [e.tenant for policy in store.all for e in policy.exceptions or () if e.tenant is not None]
    tenants = _unlike(named, lambda select: select.tenants, also=excepted)
    regions = _unlike(named, lambda select: select.regions)
    surfaces = _unlike(named, lambda select: select.surfaces)
    yield from product(tenants, regions, surfaces)


def _unlike(
    selects: list[Select], of: Callable[[Select], tuple[str, ...]], also: Iterable[str] = ()
) -> list[str | None]:
    """None, and one name of each group that the same policies are for; those of ``also`` stand for themselves."""
    groups: dict[object, str] = {}
    for select in selects:
        for name in of(select):
            groups.setdefault(tuple(name in of(each) for each in selects), name)
    return [None, *dict.fromkeys([*also, *groups.values()])]


def faults(store: Store, folder: str, at: datetime) -> Iterator[Problem]:
    """Why some callers get no policy at all, as those that match them leave nothing together.

    Args:
        store: read from the folder.
        folder: what problems name as the file.
        at: the time.
    """
    told = set[str]()
    for caller in callers(store):
        try:
            store.select(*caller, at=at)
        except PolicyError as error:
            (problem,) = error.problems
            if problem.code != "no-policy" and problem.message not in told:  # to be for nobody is a choice
                told.add(problem.message)
                message = f"{_whom(caller)}: {problem.message}"
                yield Problem(folder, 0, 0, problem.code, message, problem.hint)


def never_in_shadow(store: Store) -> Iterator[tuple[Policy, str, Policy]]:
    """Categories that are in shadow and are asked of nobody so, as another policy enforces them for all who match.

    Yields:
        The policy, the id of the category, and the policy that enforces it.
    """
    chosen = [store.chosen(*caller) for caller in callers(store)]
    for policy in store.all:
        beside = [[other for other in each if other is not policy] for each in chosen if policy in each]
        for category in policy.categories:
            if not policy.shadow(category.id) or not beside:
                continue
            enforcing = [next((other for other in each if _enforces(other, category.id)), None) for each in beside]
            if all(enforcing) and enforcing[0] is not None:
                yield policy, category.id, enforcing[0]


def _enforces(policy: Policy, category: str) -> bool:
    return any(each.id == category for each in policy.categories) and not policy.shadow(category)


def _whom(caller: Caller) -> str:
    kinds = ("tenant", "region", "surface")
    named = [f"{kind} {value!r}" for kind, value in zip(kinds, caller, strict=True) if value is not None]
    return f"for {', '.join(named) or 'everyone'}"
