"""A session as the workers of a service store it, so that any of them can continue it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dnp_guard.generation.driver import Driver

Status = Literal["open", "ending", "finished", "abandoned"]
"""``ending``: one worker is about to write how the session ended, and no other may."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A session in the store. It guards one generation.

    Attributes:
        id: id of the session.
        token: SHA-256 of the token that opened it.
        tenant: tenant whose policy applies; empty for none.
        request: JSON of the host's request, without the prompts.
        policy: JSON of the resolved policy in force.
        digest: digest of that policy.
        expires: when the session expires, in seconds since 1970.
        state: JSON of the session's state; empty once it is over.
        asked: latest step for which a query came; if the number of steps is unknown, the latest position in the run,
            in thousandths; -1 for none.
        step: highest step number of a query; -1 for none.
        answers: JSON of the answers by step.
        final: JSON of the verdicts; empty before them.
        status: ``open`` until the session ends; see :data:`Status`.
        version: number that grows with every change.
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
    """A session that this worker has in memory.

    Attributes:
        version: the version that was last loaded from or saved to the store.
        driver: the object that runs the session, in the state of that version.
        expires: when the session expires, in seconds since 1970.
    """

    version: int
    driver: Driver
    expires: float


FIELDS = tuple(Stored.__dataclass_fields__)
CHANGING = ("expires", "state", "asked", "step", "answers", "final", "status", "version")


class SessionStore(Protocol):
    """Interface of a session store. At most one worker at a time changes a session.

    Attributes:
        private: whether its contents never leave this process.
    """

    private: bool

    def add(self, session: Stored, most: int) -> bool:
        """Add a new session, unless its token already has ``most`` open ones; return whether it was added."""

    def load(self, session: str) -> Stored | None:
        """Load a session by its id; None if there is none."""

    def save(self, session: Stored) -> bool:
        """Save a session with the next version, unless it changed since it was loaded; return whether it was saved."""

    def expired(self, now: float) -> Sequence[Stored]:
        """Remove and return the sessions that have expired by ``now``; every session goes to one caller only."""

    def take_open(self) -> Sequence[Stored]:
        """Remove and return every open session; every session goes to one caller only."""

    def count(self, token: str, window: int) -> int:
        """Count a request of a token in a time window, given by its number; return the count, this request included."""

    def close(self) -> None:
        """Close the store."""
