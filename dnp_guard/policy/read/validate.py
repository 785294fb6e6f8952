"""Validate plain data as a policy, and report every problem at its position in the file."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from dnp_guard.errors import PolicyError, Problem, nearest
from dnp_guard.policy.model.keys import Keys, key_hint, keys_at, keys_of
from dnp_guard.policy.model.policy import BROKEN_RULES, Policy
from dnp_guard.policy.model.scalars import IN_WORDS
from dnp_guard.policy.read.document import shorten
from dnp_guard.policy.read.removed_keys import removed_key, removed_value
from dnp_guard.policy.read.rewriting import UNIT_KEYS, Misfit, rewritten

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic_core import ErrorDetails

    from dnp_guard.policy.model.violation import Loc, Violation
    from dnp_guard.policy.read.document import Document

ModelT = TypeVar("ModelT", bound=BaseModel)

_CODES = {
    "missing": "missing-key",
    "extra_forbidden": "unknown-key",
    "literal_error": "unknown-value",
    "string_pattern_mismatch": "bad-name",
    "greater_than_equal": "out-of-range",
    "less_than_equal": "out-of-range",
    "finite_number": "out-of-range",
    "greater_than": "out-of-range",
    "less_than": "out-of-range",
    "too_short": "too-few",
    "too_long": "too-many",
    "string_too_short": "empty-value",
    "string_too_long": "too-long",
}
"""Stable codes for pydantic's error types; any other is a ``wrong-type``."""

_EXPECTED = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
    "string_too_short": "some text",
    "string_type": "text",
    "string_too_long": "at most {max_length} characters",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} item",
    "tuple_type": "a list",
    "greater_than": "a number over {gt:g}",
    "greater_than_equal": "a number of {ge:g} or more",
    "less_than": "a number under {lt:g}",
    "less_than_equal": "a number of {le:g} or less",
    "finite_number": "a number",
}
"""Words for the expectations that pydantic states in terms of Python."""

_STAND_IN = {"format": 1, "name": "unnamed", "id": "unnamed-{}"}
_ROUNDS = 4

MAX_PROBLEMS = 200
"""Most problems in a report; more would not help, and take time to explain."""


def validate(document: Document) -> Policy:
    """Check a document against the policy models and the rules that concern several of their fields.

    Args:
        document: plain data, with ``extends`` applied.

    Returns:
        The policy, with defaults filled in.

    Raises:
        PolicyError: the document is invalid; carries all problems, in the order of the file.
    """
    problems = list(document.problems)
    policy, more = _check(document)
    taken = {(problem.file, problem.line, problem.column) for problem in problems}
    problems += [problem for problem in more if (problem.file, problem.line, problem.column) not in taken]
    if problems or policy is None:
        ordered = sorted(
            dict.fromkeys(problems),
            key=lambda problem: (problem.file != document.file, problem.file, problem.line, problem.column),
        )
        if len(ordered) > MAX_PROBLEMS:
            last = replace(
                ordered[MAX_PROBLEMS], code="more-problems", message="there are more problems from here on.", hint=""
            )
            ordered[MAX_PROBLEMS:] = [last]
        raise PolicyError(ordered)
    return policy


def read_as(model: type[ModelT], document: Document) -> ModelT:
    """Check a document against a pydantic model other than a policy, such as that of a test file.

    Raises:
        PolicyError: the document is invalid; carries all problems, in the order of the file.
    """
    problems, made = list(document.problems), None
    if not isinstance(document.data, dict):
        problems.append(document.problem((), "wrong-type", "the file is keys and values", "Begin with `format: 1`."))
    else:
        try:
            made = model.model_validate(document.data)
        except ValidationError as error:
            keys = keys_of(model)
            problems += [
                _field_problem(document, detail, keys) for detail in _without_echoes(error.errors(include_url=False))
            ]
    if problems or made is None:
        raise PolicyError(sorted(dict.fromkeys(problems), key=lambda problem: (problem.line, problem.column)))
    return made


def _check(document: Document) -> tuple[Policy | None, list[Problem]]:
    if not isinstance(document.data, dict):
        return None, [document.problem((), "wrong-type", "a policy is keys and values", "Begin with `format: 1`.")]
    try:
        return Policy.model_validate(document.data), []
    except ValidationError as error:
        first = _without_echoes(error.errors(include_url=False))
    shown = first[: MAX_PROBLEMS + 1]
    if len(first) > MAX_PROBLEMS:
        first = []  # too broken for the rules between fields
    meant = _meanings(shown)
    misspelt = set(meant.values())
    problems = [
        _field_problem(document, detail, meant=meant)
        for detail in shown
        if detail["type"] != BROKEN_RULES
        and not (detail["type"] == "missing" and detail["loc"] in misspelt | document.unread)
        and (detail["type"] == "missing" or detail["loc"] in document.values)
    ]
    doubtful = set(document.unread)
    problems += [
        document.problem(violation.loc, violation.code, violation.message, violation.hint)
        for violation in _violations(document.data, first, doubtful)
        if not any(_overlap(loc, bad) for loc in (violation.loc, *violation.also) for bad in doubtful)
    ]
    return None, problems


def _violations(data: Any, details: list[ErrorDetails], doubtful: set[Loc]) -> Iterable[Violation]:
    """Return the broken rules that concern several fields, which pydantic checks only if no field is invalid.

    Invalid values are removed and the rest is checked again. ``doubtful`` collects the paths of the removed values, so
    that no rule about them is reported.
    """
    for _ in range(_ROUNDS):
        for detail in details:
            if detail["type"] == BROKEN_RULES:
                return cast("tuple[Violation, ...]", detail["ctx"]["violations"])
        data = copy.deepcopy(data)
        for detail in details:
            doubtful |= _take_out(data, detail)
        try:
            Policy.model_validate(data)
        except ValidationError as error:
            details = _without_echoes(error.errors(include_url=False))
        else:
            break
    return ()


def _take_out(data: Any, detail: ErrorDetails) -> set[Loc]:
    loc = detail["loc"]
    if detail["type"] == "missing" and loc[-1] in _STAND_IN:
        value = _STAND_IN[loc[-1]]
        if isinstance(container := _get(data, loc[:-1]), dict):
            container[loc[-1]] = value.format(loc[1]) if isinstance(value, str) and len(loc) > 1 else value
        return {loc}
    head, rest = (loc[:2], loc[2:]) if loc[0] == "categories" and len(loc) > 2 else ((), loc)  # noqa: PLR2004
    keys = rest[: next((index for index, part in enumerate(rest) if isinstance(part, int)), len(rest))]
    for end in range(len(keys), 0, -1):
        container = _get(data, (*head, *keys[: end - 1]))
        if isinstance(container, dict) and container.pop(keys[end - 1], None) is not None:
            break
    return {(*head, *keys), _meant(loc)} if detail["type"] == "extra_forbidden" else {(*head, *keys)}


def _meanings(details: list[ErrorDetails], keys: Keys | None = None) -> dict[Loc, Loc]:
    """Return the key that every unknown one probably means: the most similar, or the only one missing beside it."""
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    missing = [detail["loc"] for detail in details if detail["type"] == "missing"]
    meant = {}
    for loc in unknown:
        absent = [other for other in missing if other[:-1] == loc[:-1]]
        alone = sum(other[:-1] == loc[:-1] for other in unknown) == 1
        best = nearest(str(loc[-1]), keys_at(loc[:-1], keys))
        only = not best and alone and len(absent) == 1
        meant[loc] = absent[0] if only else (*loc[:-1], best or loc[-1])
    return meant


def _meant(loc: Loc) -> Loc:
    """Return the path of the key that a misspelt one probably means."""
    return (*loc[:-1], nearest(str(loc[-1]), keys_at(loc[:-1])) or loc[-1])


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Remove the error that a list is too short if items of the list are invalid, since these are the cause."""
    return [
        detail
        for detail in details
        if detail["type"] != "too_short" or not any(_inside(other["loc"], detail["loc"]) for other in details)
    ]


def _inside(loc: Loc, around: Loc) -> bool:
    return len(loc) > len(around) and loc[: len(around)] == around


def _get(data: Any, loc: Loc) -> Any:
    for part in loc:
        if isinstance(part, int):
            data = data[part] if isinstance(data, list) else None
        else:
            data = data.get(part) if isinstance(data, dict) else None
    return data


def _overlap(one: Loc, other: Loc) -> bool:
    length = min(len(one), len(other))
    return one[:length] == other[:length]


def _field_problem(
    document: Document, detail: ErrorDetails, keys: Keys | None = None, meant: Mapping[Loc, Loc] | None = None
) -> Problem:
    loc, kind, value = detail["loc"], detail["type"], detail.get("input")
    if kind == "missing":
        return document.problem(loc[:-1], "missing-key", f"`{loc[-1]}` is missing", f"Add `{loc[-1]}:`.")
    if kind == "extra_forbidden" and keys is None and (gone := removed_key(loc)):
        return document.problem(loc, "removed-key", gone.why, gone.instead, key=True)
    if kind == "literal_error" and keys is None and (gone := removed_value(loc, value)):
        return document.problem(loc, "removed-value", gone.why, gone.instead)
    if kind == "extra_forbidden":
        other = (meant or {}).get(loc, loc)
        hint = key_hint(loc, keys) if other == loc else f"Did you mean `{other[-1]}`?"
        return document.problem(loc, "unknown-key", f"unknown key `{shorten(loc[-1])}`", hint, key=True)
    key = next((part for part in reversed(loc) if isinstance(part, str)), "")
    expected = _expected(detail, key)
    shown = _shown(document, loc, value)
    message = f"{shown} does not fit {f'`{key}`' if key else 'a policy'}: expected {expected}"
    hint = rewritten(Misfit(kind, value, shown.strip("`"), key, expected, _options(detail)), _ids(document, loc))
    return document.problem(loc, _CODES.get(kind, "wrong-type"), message, hint)


def _ids(document: Document, loc: Loc) -> list[str]:
    """Return the ids of the policy's categories if the value at a path names a category; empty if it does not."""
    if loc[0] not in {"rules", "floor", "exceptions"}:
        return []
    categories = document.data.get("categories") if isinstance(document.data, dict) else None
    ids = (
        [category.get("id") for category in categories if isinstance(category, dict)]
        if isinstance(categories, list)
        else []
    )
    return [name for name in ids if isinstance(name, str)]


def _options(detail: ErrorDetails) -> list[str]:
    expected = detail.get("ctx", {}).get("expected", "")
    return (re.findall(r"'([^']*)'", expected) or [expected]) if detail["type"] == "literal_error" else []


def _expected(detail: ErrorDetails, key: str) -> str:
    """Return the values that a field accepts, in words."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return " | ".join(_options(detail))
    if kind == "string_pattern_mismatch":
        return IN_WORDS[context["pattern"]]
    if key in UNIT_KEYS and kind in {"float_type", "less_than_equal", "greater_than_equal", "finite_number"}:
        return "a number from 0 to 1"
    if expected := _EXPECTED.get(kind):
        return expected.format(**context) + ("s" if kind == "too_short" and context["min_length"] > 1 else "")
    expected = detail["msg"].removeprefix("Input should be ")
    return expected[:1].lower() + expected[1:]


def _shown(document: Document, loc: Loc, value: object) -> str:
    if isinstance(value, list):
        return "an empty list" if not value else f"a list of {len(value)}"
    if isinstance(value, dict):
        return "empty braces" if not value else "a group of keys"
    text = shorten(document.place(loc).text)
    return f"`{text}`" if text else "an empty text"
