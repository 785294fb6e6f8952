"""Check whether other processes of this machine are running."""

from __future__ import annotations

import os


def runs(pid: int) -> bool:
    """Return whether a process with this id is running, under any user."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no process has an id that is too large
        return False
    except OSError:
        return True  # a process of another user
    return True
