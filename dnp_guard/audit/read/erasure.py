"""Erase the records of one person from a log.

A tombstone takes the place of the erased records, so that the rest of the hash chain can still be verified. Requests on
hold are not erased before their hold ends.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from dnp_guard.audit.events import RequestStarted, SubjectErased
from dnp_guard.audit.read.retention import held, now, open_log, remove
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.redact import subject_hash
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.audit.read.second_place import SecondPlace

_NOTHING_OLDER: Final = "1970-01-01T00:00:00.000Z"
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Erased:
    """The result of an erasure, or of a dry run.

    Attributes:
        subject: keyed hash by which records name the person.
        requests: ids of the erased generations.
        records: number of records removed.
        waiting: ids of the person's generations on hold, which stay until the hold ends.
    """

    subject: str
    requests: tuple[str, ...]
    records: int
    waiting: tuple[str, ...]


def erase(
    path: Path,
    subject: str,
    *,
    by: str = "",
    why: str = "",
    second: SecondPlace | None = None,
    dry_run: bool = False,
) -> Erased:
    """Remove all records and stored pictures of a person's generations, and record the erasure in the log.

    Args:
        path: the log; other processes may continue to write it.
        subject: the person's name, as the program that generates images gives it, or the hash in records.
        by: person who requests the erasure.
        why: reason for the erasure, for readers of the log.
        second: file of the log's checkpoints; None if there is none.
        dry_run: whether to remove nothing, and only report what would be removed.

    Raises:
        AuditError: the log has no generation of this person, verifying it finds a problem, or it cannot be written.
    """
    keyed = {subject} if _HASH.fullmatch(subject) else set()
    keyed.add(subject_hash(subject, path))
    started = [record for record in Log(path) if record["event"] == RequestStarted.name]
    theirs = {str(record["request"]): str(record["subject"]) for record in started if record.get("subject") in keyed}
    if not theirs:
        raise AuditError(
            f"{path}: no generation of this subject",
            hint="Name the person as the host does, or give the record's `subject`; the log's key must be present.",
        )
    waiting = theirs.keys() & held(path)
    gone = frozenset(theirs.keys() - waiting)
    name = next(iter(theirs.values()))
    reason = f"erasure: of a subject{f', {why}' if why else ''}"
    done = remove(path, _NOTHING_OLDER, reason, gone, second=second, dry_run=dry_run)
    erased = Erased(name, tuple(sorted(gone)), done.records, tuple(sorted(waiting)))
    if not dry_run:
        sink = open_log(path)
        event = SubjectErased(
            subject=name, records=done.records, waiting=erased.waiting or None, by=by or None, reason=why or None
        )
        sink.write(event.record())
        if second is not None:
            second.vouch(sink.head, now())
        sink.close()
    return erased


def waiting(path: Path, request: str) -> str | None:
    """Return the person, as a hash, whose erasure waits for the end of the hold on a request; None if none waits."""
    subject = None
    for record in Log(path):
        if record["event"] == SubjectErased.name:
            named = record.get("waiting")
            if isinstance(named, list) and request in named:
                subject = str(record.get("subject"))
            elif subject == record.get("subject"):
                subject = None
    return subject
