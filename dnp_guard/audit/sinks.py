"""Where records go. A sink seals each event into its own chain; more kinds come from plugins.

A chain without a key finds accidents and partial edits at their line; rewriting to the end or cutting the tail is found
only against a checkpoint kept elsewhere.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from dnp_guard.audit.chain import LONGEST_LINE, ZERO, Head, head_after, parse, seal
from dnp_guard.audit.lock import locked
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BLOCK = 8192
_NOT_A_LOG = "It was left untouched. Give another path, or move the file away."


@runtime_checkable
class Sink(Protocol):
    """Takes events, one after another, from any thread."""

    def write(self, event: Mapping[str, Any]) -> None:
        """Keep one event; when this returns, it is written.

        Args:
            event: what :func:`dnp_guard.audit.record.build` makes.

        Raises:
            Exception: it could not be kept, and nothing of it was.
        """

    def close(self) -> None:
        """Let go of what the sink holds; a second call does nothing."""


class MemorySink:
    """A log in memory, for tests and for looking at what a guard would write.

    Attributes:
        lines: the sealed lines, without newlines.
    """

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._prev = ZERO
        self._lock = Lock()

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines, parsed."""
        return [record for line in self.lines if (record := parse(line)) is not None]

    def write(self, event: Mapping[str, Any]) -> None:
        """Seal an event and keep it."""
        with self._lock:
            line, self._prev = seal(event, len(self.lines), self._prev)
            self.lines.append(line)

    def close(self) -> None:
        """Do nothing."""


class JsonlSink:
    """A log in a file, one line a record, shared by any number of threads and processes of one machine.

    The file is opened and locked anew for each record and its end read from disk: no two writers, a forked child
    included, take the same place, and a log that was moved away is followed by a new one. A last line that was torn by
    a crash is moved to ``<file>.torn-<seq>`` and the log goes on.

    Args:
        path: the log; made where it is missing, readable by its owner only. Its folder must exist.

    Raises:
        AuditError: the folder is missing, the file cannot be written, or it is not an audit log.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._locked() as descriptor:
            self._head(descriptor)

    def write(self, event: Mapping[str, Any]) -> None:
        """Append an event in one write.

        Raises:
            AuditError: the record is not whole in the file, and nothing of it is.
        """
        with self._locked() as descriptor:
            head = self._head(descriptor)
            line, _ = seal(event, head.seq, head.prev)
            end = os.fstat(descriptor).st_size
            if os.write(descriptor, line + b"\n") <= len(line):
                os.ftruncate(descriptor, end)
                raise AuditError(f"{self.path}: the disk took only a part of a record", hint="Make room on the disk.")

    def close(self) -> None:
        """Do nothing: no file stays open between records."""

    @contextmanager
    def _locked(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise AuditError(f"{self.path} is not a regular file", hint="An audit log is read back to go on.")
                with locked(descriptor):
                    yield descriptor
            finally:
                os.close(descriptor)
        except FileNotFoundError as error:
            raise AuditError(f"{self.path}: the folder {self.path.parent} does not exist", hint="Make it.") from error
        except OSError as error:
            raise AuditError(
                f"{self.path}: cannot write the audit log: {error.strerror}",
                hint="Let this user write the file and its folder, and check that the disk has room.",
            ) from error

    def _head(self, descriptor: int) -> Head:
        line, torn = self._tail(descriptor)
        if line:
            head = head_after(parse(line) or {})
            if head is None:
                raise AuditError(f"{self.path}: its last line is not an audit record", hint=_NOT_A_LOG)
        else:
            head = Head()
        if torn:
            if not line and _is_foreign(torn):
                raise AuditError(f"{self.path}: what it holds is not an audit log", hint=_NOT_A_LOG)
            self._set_aside(descriptor, torn, head.seq)
        return head

    def _tail(self, descriptor: int) -> tuple[bytes, bytes]:
        """The last whole line with its newline, and what follows it."""
        size, block = os.fstat(descriptor).st_size, _BLOCK
        while True:
            start = max(0, size - block)
            data = os.pread(descriptor, size - start, start)
            end = data.rfind(b"\n") + 1
            begin = data.rfind(b"\n", 0, end - 1) + 1 if end else 0
            if start == 0 or begin:
                return data[begin:end], data[end:]
            if block > 4 * LONGEST_LINE:
                raise AuditError(f"{self.path}: a line too long for an audit record", hint=_NOT_A_LOG)
            block *= 4

    def _set_aside(self, descriptor: int, torn: bytes, seq: int) -> None:
        with open(f"{self.path}.torn-{seq}", "ab", opener=_private) as aside:
            aside.write(torn)
            aside.flush()
            os.fsync(aside.fileno())
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(torn))


def _is_foreign(fragment: bytes) -> bool:
    # A whole JSON object without a newline, unless it is an audit record, is somebody's settings, not a torn record.
    record = parse(fragment)
    return not b'{"'.startswith(fragment[:2]) or (record is not None and head_after(record) is None)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
