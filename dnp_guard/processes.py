"""What can be said of other processes of this machine."""

from __future__ import annotations

import os


def runs(pid: int) -> bool:
    """Whether a process of this id runs, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
