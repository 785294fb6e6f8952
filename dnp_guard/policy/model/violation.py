"""A rule that a policy breaks, and where."""

from __future__ import annotations

from dataclasses import dataclass

Loc = tuple[str | int, ...]
"""The way to a value from the top of a policy: keys and positions in lists."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a policy breaks.

    Attributes:
        code: a stable kebab-case name of the rule.
        loc: where a reader would mend it.
        message: what is wrong.
        hint: what to do.
        also: the other values the rule is about; where one of them is wrong in itself, the rule says nothing.
    """

    code: str
    loc: Loc
    message: str
    hint: str = ""
    also: tuple[Loc, ...] = ()
