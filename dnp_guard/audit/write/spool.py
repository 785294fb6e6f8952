"""A spool: records that an audit sink did not accept, stored on disk until it does, even after the process has ended.

The records are stored in order and without position and hashes, which the sink adds. The sink gets every record at
least once.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.chain import parse
from dnp_guard.canonical import canonical
from dnp_guard.files import state_path

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BACKLOG: Final = 1000
"""Most records in memory if they cannot be stored on disk; the oldest are dropped first."""

LARGEST: Final = 64 << 20
"""Most bytes on disk; later records are dropped."""

FOLDER_VARIABLE: Final = "DNP_GUARD_SPOOL"


def spool_folder() -> Path | None:
    """Return the folder for records that a failing sink did not accept.

    It is ``DNP_GUARD_SPOOL``, or ``dnp-guard/spool`` in the user's state folder. None if the user has no home folder;
    then the records are stored in memory.
    """
    return state_path("spool", FOLDER_VARIABLE)


class Spool:
    """The records that one sink did not accept, and that wait until it does.

    Args:
        folder: folder to store them in, in files readable by their owner only; None to store them in memory.
        name: name of the sink. Records that an ended process left for a sink of this name are included.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self._folder = folder
        self._key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        self._files: list[_Kept] = _left(folder, self._key) if folder is not None else []
        self._own: _Kept | None = None
        self._memory: deque[Mapping[str, Any]] = deque()

    def __bool__(self) -> bool:
        return bool(self._files or self._memory)

    def __len__(self) -> int:
        return len(self._memory) + sum(file.count for file in self._files)

    def add(self, record: Mapping[str, Any]) -> bool:
        """Store a record for later; return False if this or an older record was lost."""
        if self._folder is not None and not self._memory:
            with suppress(OSError):
                return self._add_to_file(record)
        self._memory.append(record)
        if len(self._memory) <= BACKLOG:
            return True
        self._memory.popleft()
        return False

    def drain(self, write: Callable[[Mapping[str, Any]], object]) -> None:
        """Write all records to the sink, in order, and remove them.

        Args:
            write: function that writes one record. If it raises, this record and later ones stay in the spool.
        """
        while self._files:
            self._files[0].drain(write)
            if self._files.pop(0) is self._own:
                self._own = None
        while self._memory:
            write(self._memory[0])
            self._memory.popleft()

    def leave(self) -> None:
        """Release the files on disk to the next process with this sink, or in a forked child to its parent."""
        for file in self._files:
            os.close(file.descriptor)
        self._files, self._own = [], None
        self._memory.clear()

    def _add_to_file(self, record: Mapping[str, Any]) -> bool:
        if self._own is None:
            self._own = _created(self._folder or Path(), self._key)
            self._files.append(self._own)
        return self._own.add(canonical(record) + b"\n")


@dataclass(slots=True)
class _Kept:
    """A file of spooled records, locked by the process that uses it."""

    path: Path
    descriptor: int
    size: int = 0
    read: int = 0
    count: int = 0

    def add(self, line: bytes) -> bool:
        if self.size + len(line) > LARGEST:
            return False
        try:
            written = os.write(self.descriptor, line)
        except OSError:
            os.ftruncate(self.descriptor, self.size)
            raise
        if written < len(line):
            os.ftruncate(self.descriptor, self.size)
            raise OSError("the disk took only a part of a record")
        self.size += len(line)
        self.count += 1
        return True

    def drain(self, write: Callable[[Mapping[str, Any]], object]) -> None:
        with self.path.open("rb") as file:
            file.seek(self.read)
            for line in file:
                record = parse(line) if line.endswith(b"\n") else None
                if record is not None:
                    write(record)
                self.read += len(line)
                self.count -= 1
        self.path.unlink(missing_ok=True)
        os.close(self.descriptor)


def _created(folder: Path, key: str) -> _Kept:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{key}.{secrets.token_hex(8)}.jsonl"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    _lock(descriptor)
    return _Kept(path, descriptor)


def _left(folder: Path, key: str) -> list[_Kept]:
    """Open and lock the files of records that ended processes left for a sink."""
    files = []
    with suppress(OSError):
        for path in sorted(folder.glob(f"{key}.*.jsonl"), key=lambda path: path.stat().st_mtime):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            if _lock(descriptor):
                files.append(_Kept(path, descriptor, path.stat().st_size, count=path.read_bytes().count(b"\n")))
            else:
                os.close(descriptor)
    return files


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
