"""Check that a log still contains the records of its writer, and continues from the last one."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dnp_guard.audit.chain import parse, tombstone
from dnp_guard.audit.segments import segments
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.audit.chain import Head


def continues(log: Path, left: Head) -> bool:
    """Return whether a log continues after a writer's last record, by the next record or by a tombstone in its place.

    The newest files are read first, since other writers have usually added only a little.

    Args:
        log: the current file of the log.
        left: end of the log after the writer's last record.
    """
    for file in (log, *reversed(segments(log))):
        with suppress(FileNotFoundError), file.open("rb") as lines:
            for line in lines:
                if follows(line, left) or (b'"tombstone"' in line and _buried(line, left)):
                    return True
    return False


def follows(line: bytes, left: Head) -> bool:
    """Return whether a line is the record that follows a writer's last one.

    Args:
        line: a line of the log.
        left: end of the log after the writer's last record.
    """
    return left.prev.encode() in line and (parse(line) or {}).get("prev") == left.prev


def changed(log: Path) -> AuditError:
    """Return the error for a log that no longer contains its writer's last record."""
    return AuditError(
        f"{log}: the log was removed, cut or replaced while it was being written",
        hint="Find out who did it; 'audit verify --checkpoint' shows what is missing. The log continues from here.",
    )


def _buried(line: bytes, left: Head) -> bool:
    grave = tombstone(parse(line) or {})
    return grave is not None and grave.first <= left.seq <= grave.last + 1
