"""Whether a log goes on where its writer left it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dnp_guard.audit.chain import parse, tombstone
from dnp_guard.audit.segments import segments
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.audit.chain import Head


def goes_on(log: Path, left: Head) -> bool:
    """Whether the files of a log hold a record that follows the place where a writer left it, or did until a purge.

    The newest files are read first: others have mostly written little since.
    """
    for file in (log, *reversed(segments(log))):
        with suppress(FileNotFoundError), file.open("rb") as lines:
            for line in lines:
                if follows(line, left) or (b'"tombstone"' in line and _buried(line, left)):
                    return True
    return False


def follows(line: bytes, left: Head) -> bool:
    """Whether a line is the record after the place where a writer left a log."""
    return left.prev.encode() in line and (parse(line) or {}).get("prev") == left.prev


def changed(log: Path) -> AuditError:
    """What to say of a log that does not go on where a writer left it."""
    return AuditError(
        f"{log}: the log was removed, cut or exchanged while it was written",
        hint="Look for who did it; 'audit verify --checkpoint' says what is gone. The log goes on from here.",
    )


def _buried(line: bytes, left: Head) -> bool:
    grave = tombstone(parse(line) or {})
    return grave is not None and grave.first <= left.seq <= grave.last + 1
