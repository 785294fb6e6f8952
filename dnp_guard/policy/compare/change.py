"""One difference between two policies, and which way it goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
