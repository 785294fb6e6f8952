"""A session as the workers of a service keep it, so that each can go on with any of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.generation.driver import Driver

Status = Literal["open", "ending", "finished", "abandoned"]
"""``ending``: one worker is about to write how it ended, and no other may."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A session as it is kept.

    Attributes:
        id: of the session.
        token: SHA-256 of the token that opened it.
        tenant: whom it is for; empty for nobody in particular.
        request: JSON of what the host asked for, without the prompts.
        policy: JSON of the resolved policy in force.
        digest: of that policy.
        expires: in seconds since 1970.
        state: JSON of the session's state; empty once it is over.
        asked: how far in the run a query has come; -1 for none.
        step: the highest step of a query; -1 for none.
        answers: JSON of the answer to each step.
        final: JSON of the verdicts; empty before them.
        status: whether it goes on.
        version: grows with every change.
    """

    id: str
    token: str
    tenant: str
    request: str
    policy: str
    digest: str
    expires: float
    state: str
    asked: int = -1
    step: int = -1
    answers: str = "{}"
    final: str = ""
    status: Status = "open"
    version: int = 0


@dataclass(frozen=True, slots=True)
class Live:
    """A session that was worked on here.

    Attributes:
        version: of what the store has of it.
        driver: of the session, as it was then.
        expires: in seconds since 1970.
    """

    version: int
    driver: Driver
    expires: float


FIELDS = tuple(Stored.__dataclass_fields__)
CHANGING = ("expires", "state", "asked", "step", "answers", "final", "status", "version")


class SessionStore(Protocol):
    """What every kind of store does. A session is changed by one worker at a time, or by none.

    Attributes:
        private: whether what it holds never leaves this process.
    """

    private: bool

    def add(self, session: Stored, most: int) -> bool:
        """Keep a new session, unless its token has ``most`` open ones; whether it is kept."""

    def load(self, session: str) -> Stored | None:
        """The session of an id."""

    def save(self, session: Stored) -> bool:
        """Keep a session under the next version, unless another has changed it since it was loaded; whether it is."""

    def expired(self, now: float) -> Sequence[Stored]:
        """Take out what has expired; each session is given to one caller alone."""

    def take_open(self) -> Sequence[Stored]:
        """Take out every open session, likewise."""

    def count(self, token: str, window: int) -> int:
        """Count a request of a token in a window of time; how many there were, this one included."""

    def close(self) -> None:
        """Let go of it."""
