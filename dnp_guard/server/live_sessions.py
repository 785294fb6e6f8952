"""Load the sessions of a service from its store, and save them there. Knows nothing of the requests' content."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from dnp_guard.generation.second_chance import LEFT
from dnp_guard.generation.state import Request
from dnp_guard.server import replies, state
from dnp_guard.server.problems import Refusal
from dnp_guard.server.sessions import Live, Stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.generation.driver import Driver
    from dnp_guard.guard import Guard
    from dnp_guard.server.guards import Guards
    from dnp_guard.server.sessions import SessionStore

_log = logging.getLogger("dnp_guard.server")

INPUTS = "inputs"
"""Key of the verdicts on the request's input pictures, in ``Stored.answers``, which otherwise has steps as keys."""

LEFT_OUT = "left_out"
"""Key, in ``Stored.answers`` too, of the description of the first due query that the host left out."""

ENDED = "ended"
"""Key, in ``Stored.answers`` too, of the step at which the host said that the run had ended."""


class LiveSessions:
    """The sessions of a service, as they were after their last request. A session guards one generation.

    The store is authoritative: a copy of a session in this worker's memory only saves reading the store.

    Args:
        guards: guards of the tenants.
        store: shared with other workers.
        idle_s: seconds without a request after which a session expires.
        clock: seconds since 1970.
    """

    def __init__(self, guards: Guards, store: SessionStore, idle_s: float, clock: Callable[[], float]) -> None:
        self._guards = guards
        self._store = store
        self._idle_s = idle_s
        self._clock = clock
        self._live: dict[str, Live] = {}
        self._unkept: dict[str, Stored] = {}
        """Sessions still to be saved, because the store failed when they ended."""

    def add(self, stored: Stored, guard: Guard, driver: Driver, most: int) -> bool:
        """Add a new session, unless its token already has ``most`` open ones; return whether it was added."""
        if not self._store.add(stored, most):
            return False
        guard.settle()
        self._live[stored.id] = Live(0, driver, stored.expires)
        return True

    def load(self, token: str, session: str) -> Stored:
        """Load a session from the store.

        Args:
            token: SHA-256 of the token in the request.
            session: id of the session.

        Raises:
            Refusal: there is no such session, or another token opened it.
        """
        if (unkept := self._unkept.get(session)) is not None:
            self._store.save(unkept)
            del self._unkept[session]
        stored = self._store.load(session)
        if stored is None or stored.token != token:
            raise Refusal("session", "No session with this id was opened with this token, or it has expired.")
        return stored

    def take_up(self, stored: Stored) -> tuple[Guard, Driver]:
        """Return the guard of a stored session, and a driver that continues it where its last request ended.

        Raises:
            Refusal: another version of the service opened it.
        """
        guard = self._guards.of(stored.tenant or None)
        live = self._live.get(stored.id)
        if live is not None and live.version == stored.version:
            return guard, live.driver
        request = json.loads(stored.request)
        begun = Request(request["images"], request["host"], draws_again="retry" in (request.get("can") or ()))
        try:
            resumed = state.loads(stored.state)
        except ValueError as error:
            raise Refusal("session", "Another version of the service opened it; open another one.") from error
        return guard, guard.start(begun, replies.policy(stored.policy, stored.digest), resumed)

    def claim(self, stored: Stored) -> Stored:
        """Mark a session as being ended by this request, so that no other request, in any worker, records its end too.

        Returns:
            The session as it is now in the store.

        Raises:
            Refusal: another request has changed the session meanwhile.
        """
        ending = replace(stored, status="ending", expires=self.expiry())
        if not self._saved(ending, otherwise=replace(stored, version=ending.version + 1)):
            raise _busy()
        return replace(ending, version=ending.version + 1)

    def save(self, changed: Stored, guard: Guard, live: Driver) -> None:
        """Wait until the audit records of a request are written, and then save its changes to the session.

        Raises:
            Refusal: another request has changed the session meanwhile.
        """
        guard.settle()
        over = changed.status != "open"
        changed = replace(changed, state="" if over else state.dumps(live.session.state), expires=self.expiry())
        if over:
            verdicts = json.loads(changed.answers).get(INPUTS)
            # Delete findings with their session. A refusal by a picture reveals no more than the verdicts do.
            changed = replace(changed, answers=json.dumps({INPUTS: verdicts}) if verdicts else "{}")
        if not self._saved(changed, otherwise=changed if over else None):
            self._live.pop(changed.id, None)
            raise _busy()
        if over:
            self._live.pop(changed.id, None)
        else:
            self._live[changed.id] = Live(changed.version + 1, live, changed.expires)

    def sweep(self) -> None:
        """End the sessions that have expired."""
        now = self._clock()
        for stored in self._store.expired(now):
            self._end(stored, "expired")
        for session in [session for session, live in list(self._live.items()) if live.expires <= now]:
            self._live.pop(session, None)  # another worker continued or ended it
        for session in [session for session, stored in list(self._unkept.items()) if stored.expires <= now]:
            self._unkept.pop(session, None)

    def end_open(self, reason: str) -> None:
        """End all open sessions."""
        for stored in self._store.take_open():
            self._end(stored, reason)

    def expiry(self) -> float:
        """Return the time, in seconds since 1970, at which a session expires if no request follows the current one."""
        return self._clock() + self._idle_s

    def _end(self, stored: Stored, reason: str) -> None:
        if stored.status in {"open", "ending"}:
            try:
                guard, live = self.take_up(stored)
            except Refusal as problem:
                _log.warning("session %s: %s", stored.id, problem)
            else:
                if live.session.state.drawing:
                    live.give_up(LEFT)  # its other images were delivered
                else:
                    live.abandon(reason)
                guard.settle()
        self._live.pop(stored.id, None)

    def _saved(self, changed: Stored, *, otherwise: Stored | None) -> bool:
        """Save a session; return whether it was saved.

        If the store raises an error, it is unknown whether it saved the session. The next request of the session then
        saves ``otherwise`` first, if given.
        """
        if otherwise is not None:
            self._unkept[changed.id] = otherwise
        saved = self._store.save(changed)
        self._unkept.pop(changed.id, None)
        return saved


def check_goes_on(stored: Stored) -> None:
    """Check that a session is open.

    Raises:
        Refusal: the session is over, or another request is ending it.
    """
    if stored.status == "ending":
        raise _busy()
    if stored.status != "open":
        raise Refusal("over", f"It is {stored.status}; open another one.")
    if stored.final:
        raise Refusal("over", "Its images are judged; to draw some again, open a session that `retries` it.")


def _busy() -> Refusal:
    return Refusal("busy", "Send the request again.", wait=1)
