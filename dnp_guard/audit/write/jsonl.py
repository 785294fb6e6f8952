"""The audit log in a file: one line per record, shared by processes, rotated, and continued after a crash."""

from __future__ import annotations

import errno
import os
import stat
import sys
import weakref
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from dnp_guard.audit.chain import LONGEST_LINE, Head, head_after, parse, seal, tombstone
from dnp_guard.audit.lock import locked
from dnp_guard.audit.segments import segment, segments
from dnp_guard.audit.write.continuity import changed, continues, follows
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_BLOCK = 8192
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_A_LOG = "It was left untouched. Give another path, or move the file away."


class JsonlSink:
    """A log in a file, one line per record, shared by any number of threads and processes of one machine.

    The sink locks the file for every record, and reads the end of the file if another writer has appended: no two
    writers, forked children included, write a record at the same position. If the log was moved away, cut or replaced,
    one write reports this with an error, and later ones start a new log. If a crash left a part of a line at the end,
    the part is moved to ``<file>.torn-<seq>``, and the log continues.

    Args:
        path: the log; created if missing, readable by its owner only. Its folder must exist.
        rotate_bytes: size from which on the file is rotated before the next record; the chain continues in a new file.
        rotate_hours: age of the file's first record from which on the file is rotated.
        sync: whether to wait for the disk after every record, so that a power cut loses none. The records of a killed
            process are safe in any case.
        clock: function that returns the current time.

    Raises:
        AuditError: the folder is missing, the file cannot be written, or it is not an audit log.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotate_bytes: int | None = None,
        rotate_hours: float | None = None,
        sync: bool = False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.path = Path(path)
        self._rotate_bytes = rotate_bytes
        self._rotate_after = None if rotate_hours is None else timedelta(hours=rotate_hours)
        self._sync = sync
        self._clock = clock
        self._lock = Lock()
        self._file: _File | None = None
        self._left: Head | None = None
        """End of the log after this writer's last record; None if it has not written, or has reported a change."""
        _sinks.add(self)
        with self._locked() as file:
            self._read_end(file)

    @property
    def head(self) -> Head:
        """The current end of the log, with which the next record continues.

        Raises:
            AuditError: the file cannot be read.
        """
        with self._locked() as file:
            self._read_end(file)
            return file.head

    def write(self, event: Mapping[str, Any]) -> None:
        """Append the record of an event in one write.

        Raises:
            AuditError: the record could not be written, and no part of it is in the file; or another program changed
                the log, which one write reports.
        """
        written = False
        while not written:
            with self._locked() as file:
                self._read_end(file)
                self._check_continues(file)
                if self._is_due(file):
                    self.path.rename(segment(self.path, file.first))
                else:
                    self._append(file, event)
                    written = True

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        with self._lock:
            self._forget()
            self._left = None

    def _append(self, file: _File, event: Mapping[str, Any]) -> None:
        line, sealed = seal(event, file.head.seq, file.head.prev)
        end, file.size = file.size, None  # unknown until the record is complete
        if os.write(file.descriptor, line + b"\n") <= len(line):
            os.ftruncate(file.descriptor, end or 0)
            raise AuditError(f"{self.path}: the disk took only a part of a record", hint="Free some space on the disk.")
        if self._sync:
            os.fdatasync(file.descriptor)
        file.first = file.first if end else file.head.seq
        file.head, file.size = Head(file.head.seq + 1, sealed), (end or 0) + len(line) + 1
        self._left, file.left_at = file.head, file.size

    def _check_continues(self, file: _File) -> None:
        """Check that the log still contains this writer's last record.

        Raises:
            AuditError: it does not; the next write continues without this check.
        """
        left, self._left = self._left, None
        if left is not None and left != file.head and not (_follows(file, left) or continues(self.path, left)):
            raise changed(self.path)
        self._left = left

    @contextmanager
    def _locked(self) -> Iterator[_File]:
        with self._lock:
            try:
                while True:
                    file = self._file = self._file or _opened(self.path)
                    with locked(file.descriptor):
                        if _is_at(file, self.path):
                            yield file
                            return
                    self._forget()
            except OSError as error:
                self._forget()
                why, hint = _why(self.path, error)
                raise AuditError(f"{self.path}: {why}", hint=hint) from error

    def _forget(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                os.close(file.descriptor)

    def _read_end(self, file: _File) -> None:
        """Read the end of the log if another writer has changed it; move an incomplete last line to another file."""
        if file.size == (size := os.fstat(file.descriptor).st_size):
            return
        line, torn = _tail(file.descriptor, self.path)
        head = head_after(parse(line) or {}) if line else self._carried()
        if head is None:
            raise AuditError(f"{self.path}: its last line is not an audit record", hint=_NOT_A_LOG)
        if torn:
            if not line and _is_foreign(torn):
                raise AuditError(f"{self.path}: the file is not an audit log", hint=_NOT_A_LOG)
            self._set_aside(file.descriptor, torn, head.seq)
        if (self._rotate_bytes is not None or self._rotate_after is not None) and line:
            file.first, file.began = _beginning(file.descriptor)
        file.head, file.size = head, size - len(torn)

    def _carried(self) -> Head | None:
        """Return the end of the newest rotated file, where the chain continues; None if its last line is no record."""
        before = segments(self.path)
        if not before:
            return Head()
        with before[-1].open("rb") as file:
            line, _ = _tail(file.fileno(), before[-1])
        return head_after(parse(line) or {})

    def _set_aside(self, descriptor: int, torn: bytes, seq: int) -> None:
        with open(f"{self.path}.torn-{seq}", "ab", opener=_private) as aside:
            aside.write(torn)
            aside.flush()
            os.fsync(aside.fileno())
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(torn))

    def _is_due(self, file: _File) -> bool:
        if not file.size:
            return False
        full = self._rotate_bytes is not None and file.size >= self._rotate_bytes
        old = self._rotate_after is not None and self._age(file) >= self._rotate_after
        return (full or old) and not segment(self.path, file.first).exists()

    def _age(self, file: _File) -> timedelta:
        if file.began is None:
            file.first, file.began = _beginning(file.descriptor)
        return self._clock() - file.began if file.began is not None else timedelta()


@dataclass(slots=True)
class _File:
    """An open log file, and what the sink knows of it.

    Attributes:
        descriptor: file descriptor, open for appending.
        identity: device and inode of the file.
        size: size of the file when its end was last read or written; None if unknown.
        head: end of the log at that size.
        first: ``seq`` of the file's first record.
        began: time of the file's first record.
        left_at: offset in the file after this sink's last record.
    """

    descriptor: int
    identity: tuple[int, int]
    size: int | None = None
    head: Head = field(default_factory=Head)
    first: int = 0
    began: datetime | None = None
    left_at: int | None = None


def _follows(file: _File, left: Head) -> bool:
    """Return whether the record after this sink's last one continues from it: a quick check for the ordinary case."""
    if file.left_at is None or file.size is None or file.size <= file.left_at:
        return False
    since = os.pread(file.descriptor, min(file.size - file.left_at, LONGEST_LINE + 1), file.left_at)
    return follows(since.partition(b"\n")[0], left)


def _why(path: Path, error: OSError) -> tuple[str, str]:
    """Return the reason why a log cannot be written, and a hint what to do."""
    if isinstance(error, FileNotFoundError) and not path.parent.is_dir():
        return f"the folder {path.parent} does not exist", "Create it."
    if isinstance(error, IsADirectoryError):
        return "it is a folder", "Name a file in the folder, such as audit.jsonl."
    if error.errno in _NO_LOCKS:
        return (
            f"its file system has no file locks: {error.strerror}",
            "Write it to a disk of this machine, or mount with locks (NFS: with lockd, or local_lock=flock).",
        )
    hint = "Let this user write the file and its folder, and check that the disk has room."
    return f"cannot write the audit log: {error.strerror}", hint


def _opened(path: Path) -> _File:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise AuditError(f"{path} is not a regular file", hint="An audit log must be readable to be continued.")
    return _File(descriptor, (status.st_dev, status.st_ino))


def _is_at(file: _File, path: Path) -> bool:
    try:
        status = path.stat()
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == file.identity


def _tail(descriptor: int, path: Path) -> tuple[bytes, bytes]:
    """Read the last complete line of a file, with its newline, and the bytes after it."""
    size, block = os.fstat(descriptor).st_size, _BLOCK
    while True:
        start = max(0, size - block)
        data = os.pread(descriptor, size - start, start)
        end = data.rfind(b"\n") + 1
        begin = data.rfind(b"\n", 0, end - 1) + 1 if end else 0
        if start == 0 or begin:
            return data[begin:end], data[end:]
        if block > 4 * LONGEST_LINE:
            raise AuditError(f"{path}: a line is too long for an audit record", hint=_NOT_A_LOG)
        block *= 4


def _beginning(descriptor: int) -> tuple[int, datetime | None]:
    """Read the ``seq`` and the time of a file's first record."""
    line, _, _ = os.pread(descriptor, LONGEST_LINE, 0).partition(b"\n")
    record = parse(line) or {}
    buried = tombstone(record)
    try:
        first = buried.first if buried is not None else int(record["seq"])
        return first, datetime.fromisoformat(str(record.get("time")))
    except (KeyError, TypeError, ValueError):
        return 0, None


def _is_foreign(fragment: bytes) -> bool:
    # A whole JSON object without a newline that is not an audit record is another program's file, not a torn record.
    record = parse(fragment)
    return not b'{"'.startswith(fragment[:2]) or (record is not None and head_after(record) is None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


_sinks: weakref.WeakSet[JsonlSink] = weakref.WeakSet()


def _after_fork() -> None:
    # A lock on an inherited descriptor is also the parent's, and one of its threads may have held the sink's lock.
    for sink in list(_sinks):
        sink._lock = Lock()  # noqa: SLF001 (of this module)
        sink._forget()  # noqa: SLF001
        sink._left = None  # noqa: SLF001


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
