"""One difference between two policies, and whether it makes the policy stricter or milder."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Direction(StrEnum):
    """Whether a change makes a policy stricter, milder or neither."""

    STRICTER = "stricter"
    MILDER = "milder"
    UNCLEAR = "unclear"
    """Stricter or milder depending on the model's answers or on the callers, as with a reworded question."""
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two policies.

    Attributes:
        subject: id of the category that changes; empty for a change of the whole policy.
        key: policy key that changes, such as ``threshold`` or ``guidance.scale``.
        sentence: description of the change for a person.
        direction: whether the change makes the policy stricter or milder.
    """

    subject: str
    key: str
    sentence: str
    direction: Direction

    def __str__(self) -> str:
        return f"{self.subject or 'policy'}: {self.sentence}"


def changed(subject: str, key: str, old: object, new: object, then: str, direction: Direction) -> Change:
    """Return the change of a key from one value to another, with the sentence ``KEY OLD → NEW: THEN``."""
    words = key.replace("_", " ").removeprefix("queries.").removeprefix("guidance.")
    sentence = f"{words} {number(old)} → {number(new)}"
    return Change(subject, key, f"{sentence}: {then}" if then else sentence, direction)


def turn(old: Any, new: Any) -> Direction:
    """Return whether a change is stricter or milder, for a value that is stricter when larger."""
    return Direction.STRICTER if new > old else Direction.MILDER


def number(value: object) -> str:
    """Return a value as text: ``none`` for None, and a float without trailing zeros."""
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
