"""A policy file as plain data, with the place of every key and value."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import Problem

if TYPE_CHECKING:
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.violation import Loc

MAX_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key or value begins.

    Attributes:
        line: 1-based.
        column: 1-based.
        text: as written, for a scalar.
        file: where it is not the document's own, as for what ``extends`` brings in.
    """

    line: int
    column: int
    text: str = ""
    file: str = ""


@dataclass(slots=True)
class Document:
    """What one file says, before it is checked against the policy models.

    Attributes:
        file: the file's path as it was given.
        data: dict, list, str, int, float and bool.
        keys: place of each key, by the way to it.
        values: place of each value, by the way to it.
        problems: what is wrong with the file as such.
        bound: policies that this one extends, each with the categories of it that may not be loosened.
        unread: ways to values that were left out of ``data`` because of a problem.
        doubts: what its author should look at again.
    """

    file: str
    data: Any = None
    keys: dict[Loc, Place] = field(default_factory=dict)
    values: dict[Loc, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Loc] = field(default_factory=set)
    bound: list[tuple[Policy, tuple[str, ...]]] = field(default_factory=list)
    doubts: list[Problem] = field(default_factory=list)

    def place(self, loc: Loc, *, key: bool = False) -> Place:
        """Where a value (or its key) begins, or the nearest thing around it that is in the file."""
        if key and loc in self.keys:
            return self.keys[loc]
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, Place(1, 1))

    def problem(self, loc: Loc, code: str, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """A problem at the place of a value, or of its key."""
        place = self.place(loc, key=key)
        return Problem(place.file or self.file, place.line, place.column, code, f"{message}.", hint)


def shorten(text: object) -> str:
    """A value as a message shows it: one line, not too long."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1]}…"
