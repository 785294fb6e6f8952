"""A rule that a policy breaks, and its location."""

from __future__ import annotations

from dataclasses import dataclass

Loc = tuple[str | int, ...]
"""The path to a value from the top of a policy: keys and positions in lists."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a policy breaks.

    Attributes:
        code: stable kebab-case name of the rule.
        loc: path of the value to mend.
        message: description of the mistake.
        hint: how to mend it.
        also: paths of the other values in the rule; if one of them is invalid by itself, the violation is not reported.
    """

    code: str
    loc: Loc
    message: str
    hint: str = ""
    also: tuple[Loc, ...] = ()
