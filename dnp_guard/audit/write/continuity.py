"""Check that a log continues where its writer stopped."""

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
    """Return whether the files of a log contain, or contained until a purge, the record after a writer's last one.

    The newest files are read first, since others have usually written little since.
    """
    for file in (log, *reversed(segments(log))):
        with suppress(FileNotFoundError), file.open("rb") as lines:
            for line in lines:
                if follows(line, left) or (b'"tombstone"' in line and _buried(line, left)):
                    return True
    return False


def follows(line: bytes, left: Head) -> bool:
    """Return whether a line is the record after a writer's last one."""
    return left.prev.encode() in line and (parse(line) or {}).get("prev") == left.prev


def changed(log: Path) -> AuditError:
    """Make the error of a log that does not continue where a writer stopped."""
    return AuditError(
        f"{log}: the log was removed, cut or replaced while it was being written",
        hint="Find out who did it; 'audit verify --checkpoint' shows what is missing. The log continues from here.",
    )


def _buried(line: bytes, left: Head) -> bool:
    grave = tombstone(parse(line) or {})
    return grave is not None and grave.first <= left.seq <= grave.last + 1
