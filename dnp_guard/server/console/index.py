"""An index of the images in an audit log, kept in a SQLite database beside it; pages open without reading the log.

It holds nothing that the log does not, and is rebuilt if it is missing or the log was purged.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager
from dataclasses import asdict
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.chain import is_record, parse
from dnp_guard.audit.events import AppealAnswered, AppealMade, RequestStarted, VerdictGiven
from dnp_guard.audit.read.changes import CHANGES
from dnp_guard.audit.read.images import Follower, ImageRow, Sight
from dnp_guard.audit.read.lines import is_database
from dnp_guard.audit.read.verdicts import image_of
from dnp_guard.audit.segments import index_file, segments
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION: Final = 2
"""Version of the tables; an index of another version is rebuilt."""

_TABLES: Final = """
CREATE TABLE image (
    id INTEGER PRIMARY KEY, request TEXT NOT NULL, image INTEGER NOT NULL, time TEXT NOT NULL, tenant TEXT NOT NULL,
    policy TEXT NOT NULL, mode TEXT NOT NULL, decision TEXT NOT NULL, would TEXT NOT NULL, margin REAL,
    attention INTEGER NOT NULL, verdict TEXT NOT NULL DEFAULT '', appeal TEXT NOT NULL DEFAULT '', row TEXT NOT NULL,
    UNIQUE (request, image));
CREATE INDEX image_time ON image (time DESC, id DESC);
CREATE INDEX image_open ON image (attention, verdict, time DESC, id DESC);
CREATE INDEX image_decision ON image (decision, time DESC, id DESC);
CREATE INDEX image_appeal ON image (appeal, time DESC, id DESC);
CREATE TABLE sight (image INTEGER NOT NULL, category TEXT NOT NULL, probability REAL, threshold REAL,
    picture TEXT NOT NULL);
CREATE INDEX sight_category ON sight (category, image);
CREATE INDEX sight_image ON sight (image);
CREATE TABLE day (
    day TEXT NOT NULL, tenant TEXT NOT NULL, policy TEXT NOT NULL, category TEXT NOT NULL, outcome TEXT NOT NULL,
    images INTEGER NOT NULL, PRIMARY KEY (day, tenant, policy, category, outcome)) WITHOUT ROWID;
CREATE TABLE place (request TEXT PRIMARY KEY, file INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE change (record TEXT NOT NULL);
CREATE TABLE said (request TEXT NOT NULL, image INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX said_image ON said (request, image);
CREATE TABLE file (file INTEGER PRIMARY KEY, offset INTEGER NOT NULL);
CREATE TABLE state (version INTEGER NOT NULL, turn INTEGER NOT NULL, open TEXT NOT NULL);
"""
_CLEAN: Final = frozenset({"clean"})


class Index:
    """The index of one audit log. Several processes may share it: one at a time brings it up to date.

    Args:
        log: path of the log: a file of JSON lines, or a SQLite database.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self.path = index_file(log)
        self._lock = Lock()
        self._turn, self._follower = -1, Follower()

    def update(self, most: int | None = None) -> bool:
        """Add the records written since the last update; rebuild the index if it is stale.

        Args:
            most: most records to add in this call; all by default.

        Returns:
            Whether the index now holds the whole log.
        """
        with self._lock, closing(self._connect()) as database:
            try:
                database.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:  # another process is updating it
                return False
            if self._is_stale(database):
                _make(database)
            self._resume(database)
            whole = self._take(database, most)
            self._leave(database)
            database.execute("COMMIT")
            return whole

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Open the database for reading."""
        with closing(self._connect()) as database:
            database.row_factory = sqlite3.Row
            yield database

    def records(self, request: str) -> list[dict[str, Any]]:
        """Return the audit records of one generation: those written while it ran, then those of its reviews."""
        with self.reading() as database:
            place = database.execute("SELECT file, first, last FROM place WHERE request = ?", (request,)).fetchone()
            reviews = database.execute(
                "SELECT record FROM said WHERE request = ? ORDER BY rowid", (request,)
            ).fetchall()
        lines = list(self._between(*place)) if place is not None else []
        records = [record for line in lines if (record := parse(line)) and record.get("request") == request]
        return [record for record in records if is_record(record)] + [json.loads(row[0]) for row in reviews]

    def _connect(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            database = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = OFF")
            if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
                database.execute("BEGIN IMMEDIATE")
                if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
                    _make(database)
                database.execute("COMMIT")
        except (OSError, sqlite3.Error) as error:
            raise AuditError(f"{self.path}: cannot open the console's index: {error}", hint="Delete it.") from error
        return database

    def _files(self) -> list[tuple[int, Path]]:
        """Return the log's files with their inode numbers: log rotation keeps a file's number, a purge changes it."""
        files = [path for path in (*segments(self.log), self.log) if path.is_file()]
        return [(path.stat().st_ino, path) for path in files]

    def _is_stale(self, database: sqlite3.Connection) -> bool:
        if database.execute("SELECT version FROM state").fetchone() != (VERSION,):
            return True
        known = database.execute("SELECT file, offset FROM file").fetchall()
        sizes = {file: path.stat().st_size for file, path in self._files()}
        rewritten = any(sizes.get(file, -1) < offset for file, offset in known)
        return rewritten and not is_database(self.log)

    def _resume(self, database: sqlite3.Connection) -> None:
        turn, rows = database.execute("SELECT turn, open FROM state").fetchone()
        if turn != self._turn:
            self._turn, self._follower = turn, _loaded(rows)

    def _leave(self, database: sqlite3.Connection) -> None:
        self._turn += 1
        database.execute("UPDATE state SET turn = ?, open = ?", (self._turn, _dumped(self._follower)))

    def _take(self, database: sqlite3.Connection, most: int | None) -> bool:
        left = most if most is not None else -1
        for file, path in self._files():
            row = database.execute("SELECT offset FROM file WHERE file = ?", (file,)).fetchone()
            offset = row[0] if row else 0
            for start, end, line in _lines(path, offset):
                if left == 0:
                    database.execute("INSERT OR REPLACE INTO file VALUES (?, ?)", (file, offset))
                    return False
                self._add(database, file, start, line)
                offset, left = end, left - 1
            database.execute("INSERT OR REPLACE INTO file VALUES (?, ?)", (file, offset))
        return True

    def _add(self, database: sqlite3.Connection, file: int, start: int, line: bytes) -> None:
        record = parse(line)
        if record is None or not is_record(record):
            return
        if record["event"] in CHANGES:
            database.execute("INSERT INTO change VALUES (?)", (json.dumps(record),))
        if "request" not in record:
            return
        event, request = record["event"], str(record["request"])
        if event in {VerdictGiven.name, AppealMade.name, AppealAnswered.name}:
            _say(database, record)
            return
        row = self._follower.add(record)
        if event == RequestStarted.name:
            database.execute("INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?)", (request, file, start, start))
        if row is not None:
            database.execute("UPDATE place SET last = ? WHERE request = ? AND file = ?", (start, request, file))
            _insert(database, row)

    def _between(self, file: int, first: int, last: int) -> Iterator[bytes]:
        for known, path in self._files():
            if known == file:
                for start, _, line in _lines(path, first):
                    if start > last:
                        return
                    yield line


def row_of(text: str) -> ImageRow:
    """Parse the data of one image from the JSON in the ``row`` column of the index."""
    values = json.loads(text)
    sights = {name: Sight(**sight) for name, sight in values.pop("sights").items()}
    return ImageRow(**values, sights=sights)


def _lines(path: Path, offset: int) -> Iterator[tuple[int, int, bytes]]:
    """Return the complete lines of a file from an offset on, with the offsets of their start and end."""
    if is_database(path):
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as log:
            yield from log.execute("SELECT seq, next, line FROM record WHERE seq >= ? ORDER BY seq", (offset,))
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield offset, offset + len(line), line
            offset += len(line)


def _make(database: sqlite3.Connection) -> None:
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        database.execute(f'DROP TABLE "{name}"')
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute("INSERT INTO state VALUES (?, 0, '[]')", (VERSION,))


def _insert(database: sqlite3.Connection, row: ImageRow) -> None:
    outcome = f"would be {row.would}" if row.would else row.decision
    attention = int(row.decision not in _CLEAN or bool(row.would))
    key = database.execute(
        "INSERT OR REPLACE INTO image"
        " (request, image, time, tenant, policy, mode, decision, would, margin, attention, row)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.request,
            row.image,
            row.time,
            row.tenant,
            row.policy,
            row.mode,
            row.decision,
            row.would,
            row.margin,
            attention,
            json.dumps(asdict(row)),
        ),
    ).lastrowid
    database.executemany(
        "INSERT INTO sight VALUES (?, ?, ?, ?, ?)",
        [(key, sight.category, sight.probability, sight.threshold, sight.picture) for sight in row.sights.values()],
    )
    database.executemany(  # "" stands for all images, whatever their categories
        "INSERT INTO day VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET images = images + 1",
        [(row.time[:10], row.tenant, row.policy, category, outcome) for category in ("", *row.sights)],
    )


def _say(database: sqlite3.Connection, record: dict[str, Any]) -> None:
    request, image = image_of(record)
    database.execute("INSERT INTO said VALUES (?, ?, ?)", (request, image, json.dumps(record)))
    if record["event"] == VerdictGiven.name:
        change, value = "verdict", str(record.get("verdict", ""))
    else:
        change, value = "appeal", "open" if record["event"] == AppealMade.name else str(record.get("answer", ""))
    database.execute(f"UPDATE image SET {change} = ? WHERE request = ? AND image = ?", (value, request, image))  # noqa: S608 (one of two names)


def _dumped(follower: Follower) -> str:
    return json.dumps([[asdict(row) for row in follower.open()], follower.failures()])


def _loaded(text: str) -> Follower:
    if text == "[]":
        return Follower()
    rows, failures = json.loads(text)
    return Follower([row_of(json.dumps(row)) for row in rows], failures)
