"""Open the store where the workers of a service keep their sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError
from dnp_guard.server.sqlite import SqliteStore

if TYPE_CHECKING:
    from dnp_guard.server.sessions import SessionStore


def open_store(spec: str) -> SessionStore:
    """Open the session store that a spec names: ``sqlite:PATH`` or a ``redis://`` URL.

    Raises:
        DnpGuardError: the spec is neither, or the store cannot be opened.
    """
    if spec.startswith("sqlite:"):
        return SqliteStore(spec.removeprefix("sqlite:"))
    if spec.startswith(("redis://", "rediss://", "unix://")):
        from dnp_guard.server.redis import connect  # noqa: PLC0415 (an extra)

        return connect(spec)
    raise DnpGuardError(f"{spec!r} is not a session store", hint="Use sqlite:PATH or redis://HOST.")
