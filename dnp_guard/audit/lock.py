"""Keeps the other threads and processes of a machine away from a file, through its descriptor."""

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
    """Hold a file's lock.

    Args:
        descriptor: of the open file; not inherited by a thread that opens the file itself.
        shared: with others who only read.

    Raises:
        AuditError: this system has no such locks.
        OSError: the file system has none.
    """
    if sys.platform == "win32":
        raise AuditError("a log in a file needs POSIX file locks", hint="Pass a sink of your own as audit=….")
    fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        yield
    finally:
        # Closing is not enough: a child forked meanwhile holds the same lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
