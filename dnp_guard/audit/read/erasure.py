"""Erases what a log keeps of one person. A tombstone keeps the rest verifiable; a hold outranks an erasure."""

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

    from dnp_guard.audit.read.second import SecondPlace

_NOTHING_OLDER: Final = "1970-01-01T00:00:00.000Z"
_HASH: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure has done, or would do.

    Attributes:
        subject: as records name the person.
        requests: generations of the person that were erased.
        records: removed.
        waiting: generations of the person that are held, and stay until the hold ends.
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
    """Remove every record of a person's generations and the previews that they name; the log says so.

    Args:
        path: the log; other processes may go on writing it.
        subject: the person, as hosts name them, or as records do.
        by: who asks for it.
        why: for those who read the log.
        second: where the log's checkpoints are kept; None where there are none.
        dry_run: remove nothing, and say what would go.

    Raises:
        AuditError: the log has no generation of this person, does not verify or cannot be written.
    """
    keyed = {subject} if _HASH.fullmatch(subject) else set()
    keyed.add(subject_hash(subject, path))
    started = [record for record in Log(path) if record["event"] == RequestStarted.name]
    theirs = {str(record["request"]): str(record["subject"]) for record in started if record.get("subject") in keyed}
    if not theirs:
        raise AuditError(
            f"{path}: no generation of this subject",
            hint="Name the person as the host does, or give the record's `subject`; the log's key has to be there.",
        )
    waiting = theirs.keys() & held(path)
    gone = frozenset(theirs.keys() - waiting)
    name = next(iter(theirs.values()))
    reason = f"erasure: of a subject{f', {why}' if why else ''}"
    done = remove(path, _NOTHING_OLDER, reason, gone, second=second, dry_run=dry_run)
    erased = Erased(name, tuple(sorted(gone)), done.records, tuple(sorted(waiting)))
    if not dry_run:
        sink = open_log(path)
        told = SubjectErased(
            subject=name, records=done.records, waiting=erased.waiting or None, by=by or None, reason=why or None
        )
        sink.write(told.record())
        if second is not None:
            second.vouch(sink.head, now())
        sink.close()
    return erased


def waiting(path: Path, request: str) -> str | None:
    """The subject whose erasure waits for the hold on a request to end; None where none does."""
    found = None
    for record in Log(path):
        if record["event"] == SubjectErased.name:
            named = record.get("waiting")
            if isinstance(named, list) and request in named:
                found = str(record.get("subject"))
            elif found == record.get("subject"):
                found = None
    return found
