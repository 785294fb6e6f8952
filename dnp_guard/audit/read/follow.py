"""Read an audit log while it grows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from dnp_guard.audit.chain import is_record, parse
from dnp_guard.audit.read.lines import is_database, read_lines
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def follow(path: str | os.PathLike[str], wait: Callable[[], bool]) -> Iterator[dict[str, Any]]:
    """Yield the records that are written from now on, also after the log is rotated to a new file.

    Args:
        path: the log, in a file or a SQLite database.
        wait: function that is called when there is no new record; it waits, and returns False to stop.

    Raises:
        AuditError: the file cannot be read.
    """
    lines = _rows(Path(path), wait) if is_database(Path(path)) else _lines(Path(path), wait)
    last = -1
    for line in lines:
        record = parse(line)
        if record is not None and is_record(record) and record["seq"] > last:  # a purge rewrites the remaining records
            last = record["seq"]
            yield record


def _lines(path: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    where = os.SEEK_END
    try:
        while True:
            with path.open("rb") as file:
                file.seek(0, where)
                yield from _growing(file, path, wait)
                if not _moved(file.fileno(), path):
                    return
            where = os.SEEK_SET
    except OSError as error:
        raise AuditError(f"{path}: cannot read the audit log: {error.strerror}", hint="Check the path.") from error


def _growing(file: BinaryIO, path: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the lines of one file while it grows, until it is moved away or ``wait`` returns False."""
    rest = b""
    while True:
        moved = not (data := file.readline()) and _moved(file.fileno(), path)
        if data := data or file.readline():  # lines written before it was moved
            rest += data
            if rest.endswith(b"\n"):
                yield rest
                rest = b""
        elif moved or not wait():
            return


def _moved(descriptor: int, path: Path) -> bool:
    try:
        return not os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _rows(path: Path, wait: Callable[[], bool]) -> Iterator[bytes]:
    seen = sum(1 for _ in read_lines(path))
    while wait():
        lines = [line.data for line in read_lines(path)]
        yield from lines[seen:]
        seen = len(lines)
