"""Reads a log from disk line by line, one line in memory at a time, also while it is being written."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dnp_guard.audit.chain import LONGEST_LINE
from dnp_guard.audit.lock import locked
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines of a log, newlines included; of a line too long for a record, the beginning.

    Args:
        path: the log.

    Raises:
        AuditError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            left = _end(file.fileno())
            while left > 0 and (line := file.readline(min(left, LONGEST_LINE + 2))):
                left -= len(line)
                yield line
                while left > 0 and not line.endswith(b"\n") and (line := file.readline(min(left, LONGEST_LINE))):
                    left -= len(line)
    except OSError as error:
        raise AuditError(f"{path}: cannot read the audit log: {error.strerror}", hint="Check the path.") from error


def _end(descriptor: int) -> int:
    # Between two writes, so that no line is read before its writer is done with it; a copy may lie where no locks are.
    with suppress(OSError, AuditError), locked(descriptor, shared=True):
        return os.fstat(descriptor).st_size
    return os.fstat(descriptor).st_size
