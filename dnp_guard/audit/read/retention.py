"""Purge old records of an audit log. A hold on a request exempts its records.

A tombstone takes the place of purged records, so that the rest of the hash chain can still be verified: it contains
their positions and the hashes around them. A tombstone is valid only if a later ``purged`` record of the log names it.
If the log has checkpoints, one of them must name it too, since they are stored where a person who can change the log
cannot change them. Any other removal of records is still found.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit import previews
from dnp_guard.audit.chain import Tombstone, is_record, parse, tombstone
from dnp_guard.audit.events import Overridden, RecordsPurged
from dnp_guard.audit.lock import locked
from dnp_guard.audit.read.choose import whole_id
from dnp_guard.audit.read.lines import is_database, read_lines
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.segments import forget_index, segments
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink, connect
from dnp_guard.errors import AuditError
from dnp_guard.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from dnp_guard.audit.read.second_place import SecondPlace

HOLD: Final = "hold"
RELEASE: Final = "release"

_NAMED = 5000  # tombstones named per record, so that it fits into a line


@dataclass(frozen=True, slots=True)
class Purged:
    """The result of a purge.

    Attributes:
        records: number of records removed.
        held: number of old records that stay because their request is on hold.
        tombstones: number of tombstones in the log.
    """

    records: int
    held: int
    tombstones: int


def open_log(path: Path) -> JsonlSink | SqliteSink:
    """Open an existing log for appending.

    Raises:
        AuditError: the log does not exist, or is not an audit log.
    """
    if not path.is_file() and not (path.parent.is_dir() and segments(path)):
        raise AuditError(f"{path}: there is no such log", hint="Check the path.")
    return SqliteSink(path) if is_database(path) else JsonlSink(path)


def hold(path: Path, request: str, *, release: bool = False, why: str = "") -> str:
    """Put a request on hold, which exempts its records from purges, or end its hold, and record this in the log.

    Args:
        path: the log.
        request: id of the generation, or its beginning.
        release: whether to end the hold.
        why: reason, for readers of the log.

    Returns:
        The whole id.

    Raises:
        AuditError: the log cannot be written, or has no record of this request.
    """
    request = whole_id(request, requests(path))
    reason = ": ".join(filter(None, [RELEASE if release else HOLD, why]))
    sink = open_log(path)
    sink.write(Overridden(request=request, reason=reason).record())
    sink.close()
    return request


def requests(path: Path) -> set[str]:
    """Return the ids of all generations of a log."""
    return {str(record["request"]) for record in records(path) if "request" in record}


def held(path: Path) -> set[str]:
    """Return the ids of the requests on hold, whose records are exempt from purges."""
    requests_held: set[str] = set()
    for record in records(path):
        if record["event"] == Overridden.name and "request" in record:
            kind = str(record.get("reason", "")).partition(":")[0]
            if kind == HOLD:
                requests_held.add(str(record.get("request")))
            elif kind == RELEASE:
                requests_held.discard(str(record.get("request")))
    return requests_held


def purge(path: Path, before: str, second: SecondPlace | None = None, *, dry_run: bool = False) -> Purged:
    """Remove the records before a time, and their stored pictures, except those of requests on hold.

    Args:
        path: the log; other processes may continue to write it.
        before: the time, in the format of records.
        second: file of the log's checkpoints; None if there is none.
        dry_run: whether to remove nothing, and only report what would be removed.

    Raises:
        AuditError: verifying the log finds a problem, the log cannot be written, or it has checkpoints and ``second``
            is None; then nothing was removed. Or a stored picture cannot be removed; then the next purge tries again.
    """
    return remove(path, before, f"purge: older than {before}", second=second, dry_run=dry_run)


def remove(
    path: Path,
    before: str,
    reason: str,
    erased: frozenset[str] = frozenset(),
    *,
    second: SecondPlace | None = None,
    dry_run: bool = False,
) -> Purged:
    """Replace records that are too old or must be erased by tombstones, and delete their stored pictures.

    First it writes a record to the log that names the tombstones.

    Args:
        path: the log.
        before: time before which records are removed, in the format of records.
        reason: reason in that record.
        erased: ids of requests whose records are removed at any age, unless the request is on hold.
        second: file of the log's checkpoints; None if there is none.
        dry_run: whether to remove nothing, and only report what would be removed.

    Raises:
        AuditError: as in :func:`purge`.
    """
    if second is None and any("checkpoint" in record for record in records(path)):
        raise AuditError(
            f"{path}: the log has checkpoints; a purge that they do not confirm would look like a forgery",
            hint="Name their file with --checkpoint, and their key with --sign.",
        )
    verification = verify(path, second.notes() if second is not None else ())
    if not verification.ok:
        raise AuditError(f"{path}: the log does not verify, and is not purged", hint="Run 'audit verify' first.")
    end = verification.records + verification.purged
    plan = _Plan(before, end, frozenset(held(path)), now(), erased)
    for file in _files(path):
        for _ in plan.lines(parsed for parsed in map(_parsed, _data(file, path))):
            pass
    if dry_run:
        return Purged(plan.removed, plan.kept, len(plan.hashes))
    if plan.removed:
        _announce(path, reason, plan, second)
        again = _Plan(plan.before, plan.end, plan.held, plan.time, erased)
        if is_database(path):
            _rewrite_database(path, again)
        else:
            for file in _files(path):
                _rewrite_file(file, again)
            _remove_fragments(path, before)
        forget_index(path)
    oldest = datetime.fromisoformat(before).timestamp()
    previews.purge(previews.folder(path), gone=plan.gone, staying=plan.staying, held=plan.held, before=oldest)
    return Purged(plan.removed, plan.kept, len(plan.hashes))


@dataclass(slots=True)
class _Plan:
    """Decides which lines of a log stay and which tombstones replace the others; equal lines give equal decisions.

    Attributes:
        before: time before which records are removed.
        end: position after the last record when the purge began; later records stay.
        held: ids of requests on hold, whose records stay.
        time: time of new tombstones.
        erased: ids of requests whose records are removed at any age.
        removed: number of records removed so far.
        kept: number of old records that stay because their request is on hold.
        hashes: hashes of the tombstones.
        gone: file names of stored pictures in purged records.
        staying: file names of stored pictures in the remaining records.
    """

    before: str
    end: int
    held: frozenset[str]
    time: str
    erased: frozenset[str] = frozenset()
    removed: int = 0
    kept: int = 0
    hashes: list[str] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    staying: set[str] = field(default_factory=set)

    def lines(self, parsed: Iterable[tuple[bytes, dict[str, Any]]]) -> Iterator[tuple[bytes, Tombstone | None]]:
        """Yield the new lines of one file; with every line, the tombstone that it contains, or None for a record."""
        grave: Tombstone | None = None
        dug = 0
        for line, record in parsed:
            buried = tombstone(record) or self._bury(record)
            if name := previews.named(record):
                (self.staying if buried is None else self.gone).add(name)
            if buried is None:
                yield from self._close(grave, dug)
                grave, dug = None, 0
                yield line, None
                continue
            new = is_record(record)
            self.removed += new
            dug += new
            if grave is None:
                grave = buried
            else:
                grave, dug = Tombstone(grave.first, buried.last, grave.prev, buried.head, self.time), dug + 1
        yield from self._close(grave, dug)

    def _bury(self, record: dict[str, Any]) -> Tombstone | None:
        if not is_record(record) or record["seq"] >= self.end:
            return None
        if record["time"] >= self.before and record.get("request") not in self.erased:
            return None
        if record.get("request") in self.held:
            self.kept += 1
            return None
        return Tombstone(record["seq"], record["seq"], record["prev"], record["hash"], self.time)

    def _close(self, grave: Tombstone | None, dug: int) -> Iterator[tuple[bytes, Tombstone | None]]:
        if grave is not None:
            # An old tombstone stays the same, including its time, if it replaces no further records.
            new = replace(grave, time=self.time) if dug else grave
            line, sealed = new.line()
            self.hashes.append(sealed)
            yield line + b"\n", new


def _announce(path: Path, reason: str, plan: _Plan, second: SecondPlace | None) -> None:
    sink = open_log(path)
    if second is not None:
        second.vouch(sink.head, plan.time, plan.hashes)
    for start in range(0, len(plan.hashes), _NAMED):
        names = plan.hashes[start : start + _NAMED]
        sink.write(RecordsPurged(reason=reason, purged=names).record())
    if second is not None:
        second.vouch(sink.head, plan.time)
    sink.close()


def _rewrite_file(file: Path, plan: _Plan) -> None:
    try:
        with file.open("r+b") as old, locked(old.fileno()):
            if not os.path.samestat(os.fstat(old.fileno()), file.stat()):
                raise AuditError(f"{file}: the log was rotated meanwhile", hint="Run the purge again.")
            with replacing(file, private=True) as draft, draft.open("wb") as new:
                new.writelines(line for line, _ in plan.lines(map(_parsed, old)))
    except OSError as error:
        raise AuditError(
            f"{file}: cannot be purged: {error.strerror}", hint="Let this user write the folder, and run it again."
        ) from error


def _rewrite_database(path: Path, plan: _Plan) -> None:
    try:
        with closing(connect(path)) as database:
            database.execute("PRAGMA secure_delete = ON")
            database.execute("BEGIN IMMEDIATE")
            rows = database.execute("SELECT line FROM record WHERE seq < ? ORDER BY seq", (plan.end,))
            graves = [(line, grave) for line, grave in plan.lines(_parsed(row[0] + b"\n") for row in rows) if grave]
            for line, grave in graves:
                database.execute("DELETE FROM record WHERE seq BETWEEN ? AND ?", (grave.first, grave.last))
                row = (grave.first, grave.last + 1, grave.head, line[:-1])
                database.execute("INSERT INTO record VALUES (?, ?, ?, ?)", row)
            database.execute("COMMIT")
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise AuditError(f"{path}: cannot be purged: {error}", hint="Run it again.") from error


def _remove_fragments(path: Path, before: str) -> None:
    oldest = datetime.fromisoformat(before).timestamp()
    for fragment in path.parent.glob(f"{path.name}.torn-*"):
        with suppress(OSError):
            if fragment.stat().st_mtime < oldest:
                fragment.unlink()


def _files(path: Path) -> list[Path]:
    return [path] if is_database(path) else [file for file in (*segments(path), path) if file.exists()]


def _data(file: Path, log: Path) -> Iterator[bytes]:
    if is_database(log):
        yield from (line.data for line in read_lines(log))
        return
    with file.open("rb") as lines:
        yield from lines


def _parsed(line: bytes) -> tuple[bytes, dict[str, Any]]:
    return line, parse(line) or {}


def records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, and skip tombstones and unreadable lines."""
    for line in read_lines(path):
        record = parse(line.data)
        if record is not None and is_record(record):
            yield record


def now() -> str:
    """Return the current time in the format of records."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
