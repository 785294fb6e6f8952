"""What worker processes that have ended leave in the folder of prometheus_client's multiprocess mode."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client.multiprocess import mark_process_dead

if TYPE_CHECKING:
    from pathlib import Path

_LIVE = re.compile(r"gauge_live[a-z]*_(\d+)\.db")


def forget_ended(folder: Path) -> None:
    """Take out what is shown of living processes alone, of those that have ended without a word; counts stay."""
    pids = {int(match[1]) for file in folder.glob("gauge_live*.db") if (match := _LIVE.fullmatch(file.name))}
    for pid in pids:
        if not _runs(pid):
            with suppress(FileNotFoundError):  # another worker was sooner
                mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
