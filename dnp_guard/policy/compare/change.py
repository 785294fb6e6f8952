"""One difference between two policies, and its direction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Direction(StrEnum):
    """Whether a change makes a policy stricter, milder or neither."""

    STRICTER = "stricter"
    MILDER = "milder"
    UNCLEAR = "unclear"
    """It depends on the model, as for a reworded question."""
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two policies.

    Attributes:
        subject: id of a category; empty for the whole policy.
        key: key of the policy language that changes.
        sentence: the meaning of the change, in words.
        direction: direction of the change.
    """

    subject: str
    key: str
    sentence: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject or 'policy'}: {self.sentence}"


def changed(subject: str, key: str, old: object, new: object, then: str, direction: Direction) -> Change:
    """Return the change of a value, with its effect in words."""
    words = key.replace("_", " ").removeprefix("queries.").removeprefix("guidance.")
    sentence = f"{words} {number(old)} → {number(new)}"
    return Change(subject, key, f"{sentence}: {then}" if then else sentence, direction)


def turn(old: Any, new: Any) -> Direction:
    """Return the direction of a value that is stricter when larger."""
    return Direction.STRICTER if new > old else Direction.MILDER


def number(value: object) -> str:
    """Return a value in words."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
