"""Lock a file against other threads and processes of the machine."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dnp_guard.errors import AuditError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def locked(descriptor: int, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock on an open file during the ``with`` block.

    Args:
        descriptor: descriptor of the file. Threads that open the file separately exclude each other like processes.
        shared: whether to share the lock with other readers, and exclude writers only.

    Raises:
        AuditError: the operating system has no POSIX file locks.
        OSError: the file system has no locks.
    """
    if sys.platform == "win32":
        raise AuditError("a log in a file needs POSIX file locks", hint="Pass a sink of your own as audit=….")
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing is not enough, since a child that was forked meanwhile holds the same lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
