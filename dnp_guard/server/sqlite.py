"""Sessions in SQLite, for the workers of one machine."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from dnp_guard.errors import DnpGuardError
from dnp_guard.server.sessions import CHANGING, FIELDS, Stored

if TYPE_CHECKING:
    from collections.abc import Sequence


class SqliteStore:
    """Keeps sessions in an SQLite file, which several processes of one machine can share.

    Args:
        path: path of the file; ``:memory:`` for a single process.

    Raises:
        DnpGuardError: the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        self._lock = Lock()
        self._ended = True
        """Whether a session has ended since the journal was last truncated."""
        self.private = path == ":memory:"
        try:
            if path != ":memory:":
                Path(path).touch(mode=0o600)
            self._database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = WAL")
            # Writes survive a killed process; a power cut ends the generations too.
            self._database.execute("PRAGMA synchronous = OFF")
            self._database.execute("PRAGMA secure_delete = ON")  # findings are deleted with their session
            self._database.executescript(_TABLES)
        except (OSError, sqlite3.Error) as error:
            raise DnpGuardError(f"{path}: the store cannot be opened: {error}", hint="Name a file.") from error

    def add(self, session: Stored, most: int) -> bool:
        """Add a new session; see :meth:`~dnp_guard.server.sessions.SessionStore.add`."""
        row = [getattr(session, field) for field in FIELDS]
        with self._lock:
            done = self._database.execute(_INSERT, [*row, session.token, most])
        return done.rowcount == 1

    def load(self, session: str) -> Stored | None:
        """Load a session; see :meth:`~dnp_guard.server.sessions.SessionStore.load`."""
        with self._lock:
            row = self._database.execute(_SELECT, [session]).fetchone()
        return Stored(*row) if row else None

    def save(self, session: Stored) -> bool:
        """Save a session; see :meth:`~dnp_guard.server.sessions.SessionStore.save`."""
        changed = replace(session, version=session.version + 1)
        row = [getattr(changed, field) for field in CHANGING]
        with self._lock:
            done = self._database.execute(_UPDATE, [*row, session.id, session.version])
            self._ended = self._ended or session.status != "open"
        return done.rowcount == 1

    def expired(self, now: float) -> Sequence[Stored]:
        """Remove and return the expired sessions; see :meth:`~dnp_guard.server.sessions.SessionStore.expired`."""
        with self._lock:
            rows = self._database.execute(_EXPIRED, [now]).fetchall()
            self._database.execute("DELETE FROM counts WHERE window < ?", [int(now // 60) - 1])
            if (self._ended or rows) and not self.private:
                # Findings are deleted from the journal too; if another worker is in the way, at the next call.
                self._ended = bool(self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        return [Stored(*row) for row in rows]

    def take_open(self) -> Sequence[Stored]:
        """Remove and return the open sessions; see :meth:`~dnp_guard.server.sessions.SessionStore.take_open`."""
        with self._lock:
            rows = self._database.execute(_OPEN).fetchall()
        return [Stored(*row) for row in rows]

    def count(self, token: str, window: int) -> int:
        """Count a request of a token; see :meth:`~dnp_guard.server.sessions.SessionStore.count`."""
        with self._lock:
            (number,) = self._database.execute(_COUNT, [token, window]).fetchone()
        return int(number)

    def close(self) -> None:
        """Close the database; see :meth:`~dnp_guard.server.sessions.SessionStore.close`."""
        with self._lock:
            self._database.close()


_TABLES = """
CREATE TABLE IF NOT EXISTS sessions (
    id TEXT PRIMARY KEY, token TEXT, tenant TEXT, request TEXT, policy TEXT, digest TEXT, expires REAL, state TEXT,
    asked INTEGER, step INTEGER, answers TEXT, final TEXT, status TEXT, version INTEGER
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_token ON sessions (token) WHERE status = 'open';
CREATE INDEX IF NOT EXISTS by_end ON sessions (expires);
CREATE TABLE IF NOT EXISTS counts (
    token TEXT, window INTEGER, number INTEGER, PRIMARY KEY (token, window)
) WITHOUT ROWID;
"""
_NAMES = ", ".join(FIELDS)
_EXPIRED = f"DELETE FROM sessions WHERE expires <= ? RETURNING {_NAMES}"  # noqa: S608 (names of this module)
_OPEN = f"DELETE FROM sessions WHERE status = 'open' RETURNING {_NAMES}"  # noqa: S608 (as above)
_SELECT = f"SELECT {_NAMES} FROM sessions WHERE id = ?"  # noqa: S608 (as above)
_INSERT = (
    f"INSERT INTO sessions ({_NAMES}) SELECT {', '.join('?' * len(FIELDS))} "  # noqa: S608 (as above)
    "WHERE (SELECT count(*) FROM sessions WHERE token = ? AND status = 'open') < ?"
)
_UPDATE = (
    f"UPDATE sessions SET {', '.join(f'{field} = ?' for field in CHANGING)} "  # noqa: S608 (as above)
    "WHERE id = ? AND version = ?"
)
_COUNT = "INSERT INTO counts VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET number = number + 1 RETURNING number"
