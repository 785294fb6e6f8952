"""One difference between two policies, and which way it goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Direction(StrEnum):
    """Which way a change goes."""

    STRICTER = "stricter"
    MILDER = "milder"
    UNCLEAR = "unclear"
    """Only the model can tell, as where a question is worded anew."""
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        subject: the id of a category; empty for the policy as a whole.
        key: what changes, as the policy language calls it.
        sentence: what it means, for a person.
        direction: which way it goes.
    """

    subject: str
    key: str
    sentence: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject or 'policy'}: {self.sentence}"


def changed(subject: str, key: str, old: object, new: object, then: str, direction: Direction) -> Change:
    """A value that changed, and what follows from it."""
    words = key.replace("_", " ").removeprefix("queries.").removeprefix("guidance.")
    sentence = f"{words} {number(old)} → {number(new)}"
    return Change(subject, key, f"{sentence}: {then}" if then else sentence, direction)


def turn(old: Any, new: Any) -> Direction:
    """Stricter where the value grows."""
    return Direction.STRICTER if new > old else Direction.MILDER


def number(value: object) -> str:
    """A value for people."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
