"""Takes up the sessions of a service from its store, and keeps them there. Knows nothing of what is asked of them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from dnp_guard.generation.again import LEFT
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
"""Among the answers by step, what was said of the request's own pictures."""


class KeptSessions:
    """The sessions of a service, each as the store has it after its last request.

    The store is what counts: a session that is held here is only spared to be read again.

    Args:
        guards: of the tenants.
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
        """What is to be saved of sessions at whose end the store failed."""

    def add(self, kept: Stored, guard: Guard, driver: Driver, most: int) -> bool:
        """Keep a new session, unless its token has ``most`` open ones; whether it is kept."""
        if not self._store.add(kept, most):
            return False
        guard.settle()
        self._live[kept.id] = Live(0, driver, kept.expires)
        return True

    def load(self, token: str, session: str) -> Stored:
        """Read a session.

        Args:
            token: SHA-256 of the token that asks for it.
            session: its id.

        Raises:
            Refusal: there is none that this token opened.
        """
        if (unkept := self._unkept.get(session)) is not None:
            self._store.save(unkept)
            del self._unkept[session]
        kept = self._store.load(session)
        if kept is None or kept.token != token:
            raise Refusal("session", "It was never opened with this token, or has expired.")
        return kept

    def take_up(self, kept: Stored) -> tuple[Guard, Driver]:
        """Go on with a session as the store has it.

        Raises:
            Refusal: another version of the service opened it.
        """
        guard = self._guards.of(kept.tenant or None)
        live = self._live.get(kept.id)
        if live is not None and live.version == kept.version:
            return guard, live.driver
        request = json.loads(kept.request)
        begun = Request(request["images"], request["host"], draws_again="retry" in (request.get("can") or ()))
        try:
            going = state.loads(kept.state)
        except ValueError as error:
            raise Refusal("session", "Another version of the service opened it; open another one.") from error
        return guard, guard.start(begun, replies.policy(kept.policy, kept.digest), going)

    def claim(self, kept: Stored) -> Stored:
        """Mark a session as one that this request ends, so that no other, of any worker, writes how it ended.

        Raises:
            Refusal: another was sooner.
        """
        ending = replace(kept, status="ending", expires=self.expiry())
        if not self._saved(ending, otherwise=replace(kept, version=ending.version + 1)):
            raise _busy()
        return replace(ending, version=ending.version + 1)

    def save(self, changed: Stored, guard: Guard, live: Driver) -> None:
        """Keep what a request has changed; its records are written by then.

        Raises:
            Refusal: another request has changed the session meanwhile.
        """
        guard.settle()
        over = changed.status != "open"
        changed = replace(changed, state="" if over else state.dumps(live.session.state), expires=self.expiry())
        if over:
            told = json.loads(changed.answers).get(INPUTS)
            # What was found goes with its session; that a picture refused it tells no more than its verdicts do.
            changed = replace(changed, answers=json.dumps({INPUTS: told}) if told else "{}")
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
        for kept in self._store.expired(now):
            self._end(kept, "expired")
        for session in [session for session, live in list(self._live.items()) if live.expires <= now]:
            self._live.pop(session, None)  # it went on in another worker, or ended there
        for session in [session for session, kept in list(self._unkept.items()) if kept.expires <= now]:
            self._unkept.pop(session, None)

    def end_open(self, reason: str) -> None:
        """End every open session."""
        for kept in self._store.take_open():
            self._end(kept, reason)

    def expiry(self) -> float:
        """When a session expires that has a request now, in seconds since 1970."""
        return self._clock() + self._idle_s

    def _end(self, kept: Stored, reason: str) -> None:
        if kept.status in {"open", "ending"}:
            try:
                guard, live = self.take_up(kept)
            except Refusal as problem:
                _log.warning("session %s: %s", kept.id, problem)
            else:
                if live.session.state.drawing:
                    live.give_up(LEFT)  # its other images are delivered
                else:
                    live.abandon(reason)
                guard.settle()
        self._live.pop(kept.id, None)

    def _saved(self, changed: Stored, *, otherwise: Stored | None) -> bool:
        """Save a session; ``otherwise`` at its next request, where the store fails and does not say what it took."""
        if otherwise is not None:
            self._unkept[changed.id] = otherwise
        saved = self._store.save(changed)
        self._unkept.pop(changed.id, None)
        return saved


def check_goes_on(kept: Stored) -> None:
    """See that a session is open.

    Raises:
        Refusal: it is over, or another request is ending it.
    """
    if kept.status == "ending":
        raise _busy()
    if kept.status != "open":
        raise Refusal("over", f"It is {kept.status}; open another one.")
    if kept.final:
        raise Refusal("over", "Its images are judged; draw those again that are to be, in a session that `retries` it.")


def _busy() -> Refusal:
    return Refusal("busy", "Send it again.", wait=1)
