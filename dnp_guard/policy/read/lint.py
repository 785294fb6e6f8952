"""Warnings about valid policies that may not do what their author wants."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dnp_guard.errors import Problem
    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.violation import Loc
    from dnp_guard.policy.read.loading import Loaded

WINDOW = 75
"""Tokens of a prompt that CLIP's text encoder reads; later tokens have no effect."""

_TOKENS = re.compile(r"\w{1,8}|[^\w\s]")


def tokens(text: str) -> int:
    """Estimate the number of tokens: one per word or punctuation mark, more for a long word."""
    return len(_TOKENS.findall(text))


_NOT = re.compile(
    r"(no|not|without|never|avoid|don't|do not|free of|remove|exclude|absence of|non)\b[ -]*(.*)", re.IGNORECASE
)


def warnings(loaded: Loaded, at: datetime | None = None) -> Iterator[Problem]:
    """Yield the warnings about a valid policy.

    Args:
        loaded: the policy.
        at: time at which an exception that has ended gives a warning; now by default.
    """
    yield from loaded.document.doubts
    for loc, code, message, hint in _doubts(loaded.policy, loaded.document.data, at or datetime.now(UTC)):
        yield loaded.document.problem(loc, code, message, hint)


_Doubt = tuple["Loc", str, str, str]


def _doubts(policy: Policy, data: Any, now: datetime) -> Iterator[_Doubt]:
    guidance = policy.guidance
    if guidance.strength == "controller" and guidance.hold == 0:
        yield (
            ("guidance", "strength"),
            "controller-without-hold",
            "with `hold: 0` a negative ends at the first query that no longer finds its category, and never eases",
            "Write `hold: 1` or more.",
        )
    for index, category in enumerate(policy.categories):
        written = data["categories"][index]
        yield from _words(category, written, ("categories", index))
        yield from _thresholds(written, ("categories", index))
        yield from _retry(category, ("categories", index))
    ends = {category.still_present for category in policy.categories}
    ends |= {exception.set.still_present for exception in policy.exceptions or ()}
    if policy.retries is not None and Action.RETRY not in ends:
        message = "no category or exception says `still_present: retry`, so no image is generated again"
        yield ("retries",), "unused-retries", message, "Add it to a category, or delete `retries`."
    for index, exception in enumerate(policy.exceptions or ()):
        if exception.until <= now:
            message = f"this exception ended on {exception.until:%Y-%m-%d} and does nothing"
            yield ("exceptions", index, "until"), "past-exception", message, "Delete it, or give it a later end."
        yield from _thresholds(exception.set.model_dump(exclude_none=True), ("exceptions", index, "set"))


def _retry(category: Category, at: Loc) -> Iterator[_Doubt]:
    if category.still_present is Action.RETRY and category.action is Action.BLOCK:
        message = "no image is generated again: `action: block` blocks a finding, whatever `still_present` says"
        yield (*at, "still_present"), "retry-never", message, "Write `action: steer`, or `still_present: block`."


def _words(category: Category, written: dict[str, Any], at: Loc) -> Iterator[_Doubt]:
    longest = tokens(", ".join(category.words(category.terms)))
    if longest > WINDOW:
        yield (
            (*at, "negative"),
            "long-negative",
            f"if every term is found, the negative has about {longest} tokens, but a text encoder reads {WINDOW}",
            "Use fewer or shorter words.",
        )
    if written.get("look_for") == []:
        message = f"an empty `look_for` asks only about the title: {category.title}"
        yield (*at, "look_for"), "empty-look-for", message, "List what can be seen, or leave it out."
    if isinstance(category.allowed, tuple) and category.allowed and len(category.terms) > 1:
        cases = ", ".join(category.allowed)
        message = f"one excuse waives all of {_listed(category.terms)}, whichever was found"
        hint = f"Give the excuses by term: `allowed: {{{category.terms[0]}: [{cases}]}}`."
        yield (*at, "allowed"), "excuses-everything", message, hint
    for index, entry in enumerate(category.negative):
        if (match := _NOT.match(entry)) and match[2]:
            message = f"`{entry}` steers away from the absence: a negative removes the thing that it names"
            yield (*at, "negative", index), "negated-negative", message, f"Write `{match[2]}`."


def _listed(terms: Sequence[str]) -> str:
    return f"{', '.join(terms[:-1])} and {terms[-1]}"


_EXTREMES = {
    "threshold": (
        "every term is found, whatever the model sees",
        "a term is found only if it is wholly certain",
    ),
    "final_threshold": ("every finished image shows it", "hardly any finished image shows it"),
    "allowed_threshold": ("every finding is excused", "hardly any finding is excused"),
}
"""The effect of a threshold of 0, and of 1."""


def _thresholds(written: dict[str, Any], at: Loc) -> Iterator[_Doubt]:
    for key, (lowest, highest) in _EXTREMES.items():
        value = written.get(key)
        if isinstance(value, int | float) and value in {0, 1}:
            message = f"with `{key}: {value:g}` {highest if value else lowest}"
            hint = "Write a number between, such as 0.5." if value else "Write a number over 0, such as 0.5."
            yield (*at, key), "extreme-threshold", message, hint
