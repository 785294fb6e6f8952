"""Copy the complete lines of a log whose last line a crash cut off."""

from __future__ import annotations

import os
from pathlib import Path

from dnp_guard.audit.read.lines import read_lines
from dnp_guard.errors import AuditError
from dnp_guard.files import create_private


def repair(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> int:
    """Copy the complete lines of a log, including its rotated files, to a new file.

    The log itself is not changed. Only an incomplete last line is left out; verify the log first to see whether
    anything else is wrong.

    Args:
        path: the log.
        to: path of the new file, which only its owner may read.

    Returns:
        Number of lines copied.

    Raises:
        AuditError: a file cannot be read or written, or ``to`` already exists.
    """
    try:
        with create_private(Path(to)) as file:
            copied = 0
            for line in read_lines(path):
                if line.data.endswith(b"\n"):
                    file.write(line.data)
                    copied += 1
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise AuditError(
            f"{Path(to)}: cannot write the repaired log: {error.strerror}", hint="Give the path of a new file."
        ) from error
    return copied
