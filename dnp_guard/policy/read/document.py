"""A policy file as plain data, with the position of every key and value."""

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
    """The position of a key or value.

    Attributes:
        line: 1-based.
        column: 1-based.
        text: value as written in the file; empty for a mapping or a list.
        file: name of the file, if it is not the document's own, as for a value from ``extends``.
    """

    line: int
    column: int
    text: str = ""
    file: str = ""


@dataclass(slots=True)
class Document:
    """The content of one file, before it is checked against the policy models.

    Attributes:
        file: path of the file, as given.
        data: the content as dict, list, str, int, float and bool.
        keys: position of the keys, by path.
        values: position of the values, by path.
        problems: mistakes in the file itself.
        bound: policies that this one extends, with the categories that it may not loosen.
        unread: paths of values that are missing from ``data`` because of a problem.
        doubts: warnings for the author.
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
        """Return the position of a value or its key; if the file does not have it, that of the value around it."""
        if key and loc in self.keys:
            return self.keys[loc]
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, Place(1, 1))

    def problem(self, loc: Loc, code: str, message: str, hint: str = "", *, key: bool = False) -> Problem:
        """Return a problem at the position of a value, or of its key."""
        place = self.place(loc, key=key)
        return Problem(place.file or self.file, place.line, place.column, code, f"{message}.", hint)


def shorten(text: object) -> str:
    """Shorten a value for a message, to one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1]}…"
