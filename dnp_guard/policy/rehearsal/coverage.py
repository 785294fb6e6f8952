"""Coverage of a policy by its tests: categories, both sides of every threshold, and actions. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dnp_guard.policy.model.thresholds import in_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.rehearsal.cases import Ran
    from dnp_guard.types import Decision


@dataclass(frozen=True, slots=True)
class Coverage:
    """Coverage of a policy by its tests.

    Attributes:
        points: number of points to cover, such as the upper side of a category's threshold.
        missing: points that no case covers, in words.
    """

    points: int
    missing: tuple[str, ...]


def coverage(policy: Policy, ran: Sequence[Ran]) -> Coverage:
    """Measure which parts of a policy the cases cover.

    A case covers the lower side of a threshold only if it gives a probability; an omitted term covers nothing.
    """
    touched = {point for case in ran for point in _touched(policy, case)}
    points = dict(point for category in policy.categories for point in _points(policy, category))
    for index, exception in enumerate(policy.exceptions or ()):
        held = f"{exception.category}: its exception until {exception.until:%Y-%m-%d} applies in no case; add an `at`"
        points["exception", str(index)] = held
    return Coverage(len(points), tuple(words for key, words in points.items() if key not in touched))


Point = tuple[str, str]


def _points(policy: Policy, category: Category) -> Iterator[tuple[Point, str]]:
    name, limit = category.id, in_words(category.threshold)
    yield (name, "threshold over"), f"{name}: nothing at or over its threshold {limit}"
    yield (name, "threshold under"), f"{name}: nothing under its threshold {limit}"
    if policy.queries.final:
        yield (name, "final over"), f"{name}: nothing at or over {category.final_threshold} in the finished image"
        yield (name, "final under"), f"{name}: nothing under {category.final_threshold} in the finished image"
    if category.allowed:
        yield (name, "allowed over"), f"{name}: no allowed case at or over {category.allowed_threshold}"
        yield (name, "allowed under"), f"{name}: no allowed case under {category.allowed_threshold}"
    yield (name, "action"), f"{name}: its action, {category.action}, is never called for"


def _touched(policy: Policy, ran: Ran) -> Iterator[Point]:
    for index, exception in enumerate(policy.exceptions or ()):
        if ran.case.at is not None and exception.applies(ran.case.tenant, ran.case.at):
            yield "exception", str(index)
    looks = [(look, decision, False) for look, decision in zip(_given(ran), ran.course.decisions, strict=True)]
    for look, decision, final in [*looks, (_final(ran), ran.course.final, True)]:
        if decision is None:
            continue
        for category in policy.categories:
            yield from _sides(category, look, decision, final=final)


def _sides(category: Category, look: Mapping[str, float] | None, decision: Decision, *, final: bool) -> Iterator[Point]:
    kind = "final" if final else "threshold"
    found = any(finding.category == category.id for finding in (*decision.findings, *decision.waived))
    if found:
        yield category.id, f"{kind} over"
    elif look is None or any(term in look for term in category.terms):
        yield category.id, f"{kind} under"
    if any(finding.category == category.id for finding in decision.waived):
        yield category.id, "allowed over"
    elif found and look is not None and any(case in look for case in category.cases):
        yield category.id, "allowed under"
    if any(finding.category == category.id for finding in decision.findings) and not final:
        yield category.id, "action"


def _given(ran: Ran) -> Iterable[Mapping[str, float] | None]:
    """Return the probabilities that a case gives, one mapping per query; None for a case with an image."""
    if ran.case.image is not None:
        return [None]
    return [look if not isinstance(look, str) else {} for look in ran.case.looks]


def _final(ran: Ran) -> Mapping[str, float] | None:
    if ran.case.image is not None:
        return None
    return {} if ran.case.final is None or isinstance(ran.case.final, str) else ran.case.final
