"""Check whether generations can be guarded now: the model, policies, audit log, session store and threads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from anyio import CapacityLimiter, move_on_after, to_thread

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from dnp_guard.server.service import SessionService

WAIT_S: Final = 2.0
"""Seconds within which the store has to accept a write."""


class Readiness:
    """Finds the reason why no generation can be guarded now, if there is one. Must be created on the event loop.

    Args:
        service: the service to check.
    """

    def __init__(self, service: SessionService) -> None:
        self._service = service
        self._threads = to_thread.current_default_thread_limiter()
        self._probing = CapacityLimiter(1)

    async def why(self) -> str:
        """Return the reason why no generation can be guarded now; empty if everything works."""
        if why := self._service.guards.unready():
            return why
        if self._threads.available_tokens < 1:
            return "every thread is busy, so requests wait"
        return await self._store()

    async def _store(self) -> str:
        if self._probing.available_tokens < 1:
            return "the session store does not answer"
        with move_on_after(WAIT_S):
            try:
                # Try a write, because a store that is full or locked can still be read.
                await to_thread.run_sync(self._service.try_store, abandon_on_cancel=True, limiter=self._probing)
            except DnpGuardError as error:
                return error.message
            except Exception as error:  # noqa: BLE001 (every store raises errors of its own)
                return f"the session store accepts no writes: {type(error).__name__}"
            return ""
        return "the session store does not answer"
