"""Read an audit log from disk one line at a time, even while it is being written."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from dnp_guard.audit.chain import LONGEST_LINE
from dnp_guard.audit.lock import locked
from dnp_guard.audit.segments import segments
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SQLITE: Final = b"SQLite format 3\0"


class Line(NamedTuple):
    """One line of a log.

    Attributes:
        file: path of the file, relative if the path of the log was given so.
        number: line number in the file, from 1.
        data: bytes of the line, with the newline; only the beginning if the line is too long for a record.
    """

    file: str
    number: int
    data: bytes


def read_lines(path: str | os.PathLike[str]) -> Iterator[Line]:
    """Yield the lines of a log, the oldest first, including those of its rotated files.

    Args:
        path: the log, in a file or a SQLite database.

    Raises:
        AuditError: a file cannot be read.
    """
    try:
        with ExitStack() as stack:
            # Open this file before listing the others: if it is rotated meanwhile it is among them, and is read once.
            last = _opened(Path(path), stack)
            if last is not None and last.read(len(_SQLITE)) == _SQLITE:
                yield from _rows(Path(path))
                return
            for segment in segments(Path(path)):
                if last is not None and os.path.samestat(segment.stat(), os.fstat(last.fileno())):
                    continue
                with segment.open("rb") as file:
                    yield from _lines(file, os.fspath(segment))
            if last is not None:
                last.seek(0)
                yield from _lines(last, os.fspath(path))
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise AuditError(f"{path}: cannot read the audit log: {reason}", hint="Check the path.") from error


def is_database(path: Path) -> bool:
    """Return whether a log is a SQLite database."""
    with ExitStack() as stack:
        file = _opened(path, stack)
        return file is not None and file.read(len(_SQLITE)) == _SQLITE


def _opened(path: Path, stack: ExitStack) -> BinaryIO | None:
    """Open the current file of a log; None just after a rotation, when the new file does not exist yet."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise AuditError(f"{path}: not an audit log, but a folder, a pipe or a device", hint="Check the path.")
        return stack.enter_context(path.open("rb"))
    except FileNotFoundError:
        if not segments(path):
            raise
        return None


def _lines(file: BinaryIO, name: str) -> Iterator[Line]:
    left, number = _end(file.fileno()), 0
    while left > 0 and (line := file.readline(min(left, LONGEST_LINE + 2))):
        left -= len(line)
        number += 1
        yield Line(name, number, line)
        while left > 0 and not line.endswith(b"\n") and (line := file.readline(min(left, LONGEST_LINE))):
            left -= len(line)


def _rows(path: Path) -> Iterator[Line]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        for number, (line,) in enumerate(database.execute("SELECT line FROM record ORDER BY seq"), start=1):
            data = line if isinstance(line, bytes) else str(line).encode("utf-8", "replace")
            yield Line(os.fspath(path), number, data + b"\n")


def _end(descriptor: int) -> int:
    # Lock, so that no line is read before it is complete; a copy of a log may be on a file system without locks.
    with suppress(OSError, AuditError), locked(descriptor, shared=True):
        return os.fstat(descriptor).st_size
    return os.fstat(descriptor).st_size
