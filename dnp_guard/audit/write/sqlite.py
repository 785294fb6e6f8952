"""The audit log in a SQLite database in write-ahead mode: lines and hash chain as in a file, one row per record."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.chain import Head, seal
from dnp_guard.audit.write.continuity import changed
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLICATION: Final = 0x646E7067
"""SQLite's ``application_id`` of a log, "dnpg"."""

_LAST = "SELECT next, head FROM record ORDER BY seq DESC LIMIT 1"
_BEFORE = "SELECT next, head FROM record WHERE seq < ? ORDER BY seq DESC LIMIT 1"
_WAIT = 5.0


class SqliteSink:
    """A log in a SQLite database, shared by any number of threads and processes of one machine.

    Args:
        path: the database; created if missing, readable by its owner only.
        sync: whether to wait for the disk after every record, so that a power cut loses none.

    Raises:
        AuditError: the database cannot be opened, or is not an audit log.
    """

    def __init__(self, path: str | os.PathLike[str], *, sync: bool = False) -> None:
        self.path = Path(path)
        self._sync = sync
        self._pid = os.getpid()
        self._lock = Lock()
        self._inherited: list[sqlite3.Connection] = []
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._left: Head | None = None
        """End of the log after this writer's last record; None if it has not written, or has reported a change."""
        with self._lock:
            self._open()

    @property
    def head(self) -> Head:
        """The current end of the log, with which the next record continues.

        Raises:
            AuditError: the database cannot be read.
        """
        self._leave_parent()
        with self._lock:
            try:
                last = self._open().execute(_LAST).fetchone()
            except sqlite3.Error as error:
                self._drop()
                raise _failed(self.path, error) from error
        return Head(*last) if last else Head()

    def write(self, event: Mapping[str, Any]) -> None:
        """Append the record of an event in one transaction.

        Raises:
            AuditError: the record could not be written, or another program changed the log, which one write reports.
        """
        self._leave_parent()
        with self._lock:
            database = self._open()
            try:
                database.execute("BEGIN IMMEDIATE")
                last = database.execute(_LAST).fetchone()
                head = Head(*last) if last else Head()
                self._check_continues(database, head)
                line, sealed = seal(event, head.seq, head.prev)
                database.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (head.seq, head.seq + 1, sealed, line))
                database.execute("COMMIT")
                self._left = Head(head.seq + 1, sealed)
            except sqlite3.Error as error:
                self._drop()
                raise _failed(self.path, error) from error
            except BaseException:
                self._drop()
                raise

    def close(self) -> None:
        """Close the database; a later write opens it again."""
        self._leave_parent()
        with self._lock:
            self._drop()
            self._left = None

    def _check_continues(self, database: sqlite3.Connection, head: Head) -> None:
        left, self._left = self._left, None
        if left is not None and left != head:
            row = database.execute(_BEFORE, (left.seq,)).fetchone()
            if row is None or row[0] < left.seq or (row[0] == left.seq and row[1] != left.prev):
                raise changed(self.path)
        self._left = left

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._identity != _identity(self.path):
            self._drop()
            self._connection = connect(self.path, sync=self._sync)
            self._identity = _identity(self.path)
        return self._connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _leave_parent(self) -> None:
        # A connection must not be used after a fork, not even to close it.
        if self._pid != os.getpid():
            self._pid, self._lock = os.getpid(), Lock()
            if self._connection is not None:
                self._inherited.append(self._connection)
            self._connection, self._left = None, None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def connect(path: Path, *, sync: bool = False) -> sqlite3.Connection:
    """Open the database of a log, and create it if it is missing.

    Args:
        path: path of the database.
        sync: whether to wait for the disk after every transaction.

    Raises:
        AuditError: the database cannot be opened, or is not an audit log.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        database = sqlite3.connect(path, timeout=_WAIT, isolation_level=None, check_same_thread=False)
    except (OSError, sqlite3.Error) as error:
        raise _failed(path, error) from error
    try:
        _prepare(database, path, sync=sync)
    except sqlite3.Error as error:
        database.close()
        raise _failed(path, error) from error
    except BaseException:
        database.close()
        raise
    return database


def _prepare(database: sqlite3.Connection, path: Path, *, sync: bool) -> None:
    (kind,) = database.execute("PRAGMA application_id").fetchone()
    if kind != APPLICATION:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if kind or tables:
            raise AuditError(f"{path} is another kind of database", hint="It was left untouched. Give another path.")
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(
            "CREATE TABLE IF NOT EXISTS record "
            "(seq INTEGER PRIMARY KEY, next INTEGER NOT NULL, head TEXT NOT NULL, line BLOB NOT NULL)"
        )
        database.execute(f"PRAGMA application_id = {APPLICATION}")
    database.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")


def _failed(path: Path, error: Exception) -> AuditError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return AuditError(
        f"{path}: cannot write the audit log: {reason}",
        hint="Let this user write the database and its folder, and check that the disk has room.",
    )
