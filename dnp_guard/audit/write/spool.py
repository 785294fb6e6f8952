"""What a sink has missed, kept on disk until it takes it: also after the process has ended.

Records are kept as they were built, in the order in which they came, and are given to the sink at least once.
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
"""Records kept in memory where no disk takes them; the oldest go first."""

LARGEST: Final = 64 << 20
"""Bytes kept on disk; what comes after goes."""

FOLDER_VARIABLE: Final = "DNP_GUARD_SPOOL"


def spool_folder() -> Path | None:
    """Where records wait for a sink that fails: ``DNP_GUARD_SPOOL``, or ``dnp-guard/spool`` in the user's state.

    None for a user without a home: they wait in memory.
    """
    return state_path("spool", FOLDER_VARIABLE)


class Spool:
    """What one sink has missed.

    Args:
        folder: where it is kept, in files for their owner only; None to keep it in memory.
        name: of the sink; what an ended process has left for a sink of this name is taken over.
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
        """Keep a record for later; False where another had to go for it, or it could not be kept."""
        if self._folder is not None and not self._memory:
            with suppress(OSError):
                return self._add_to_file(record)
        self._memory.append(record)
        if len(self._memory) <= BACKLOG:
            return True
        self._memory.popleft()
        return False

    def drain(self, write: Callable[[Mapping[str, Any]], object]) -> None:
        """Give everything to a sink, in order.

        Args:
            write: raises where the sink does not take a record; it and what follows stay.
        """
        while self._files:
            self._files[0].drain(write)
            if self._files.pop(0) is self._own:
                self._own = None
        while self._memory:
            write(self._memory[0])
            self._memory.popleft()

    def leave(self) -> None:
        """Leave what waits on disk to another process; in a forked child, to its parent."""
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
    """A file of records that wait, locked by the process that writes or has taken it."""

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
            raise OSError("the disk took only a part")
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
    """What processes that have ended have left."""
    found = []
    with suppress(OSError):
        for path in sorted(folder.glob(f"{key}.*.jsonl"), key=lambda path: path.stat().st_mtime):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            if _lock(descriptor):
                found.append(_Kept(path, descriptor, path.stat().st_size, count=path.read_bytes().count(b"\n")))
            else:
                os.close(descriptor)
    return found


def _lock(descriptor: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
