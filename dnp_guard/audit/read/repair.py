"""Copies what is whole of a log that a crash has torn."""

from __future__ import annotations

import os
from pathlib import Path

from dnp_guard.audit.read.lines import read_lines
from dnp_guard.errors import AuditError
from dnp_guard.files import create_private


def repair(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> int:
    """Copy the lines of a log, its rotated files included, up to the last that ends with a newline.

    The log itself stays as it is. Only a torn last line is mended this way; check first that nothing else is wrong.

    Args:
        path: the log.
        to: a file that is not there yet; readable by its owner only.

    Returns:
        How many lines were copied.

    Raises:
        AuditError: a file cannot be read or written, or ``to`` is there already.
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
            f"{Path(to)}: cannot write the repaired log: {error.strerror}", hint="Give a path that is free."
        ) from error
    return copied
