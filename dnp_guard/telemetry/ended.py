"""What worker processes that have ended leave in the folder of prometheus_client's multiprocess mode."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client.mmap_dict import MmapedDict

from dnp_guard.processes import runs

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILE: Final = re.compile(r"(counter|histogram|gauge_[a-z]+)_([1-9]\d*)\.db")
_TOTAL: Final = "{}_0.db"
"""What holds all that have ended, of one kind: no process has the id 0."""
_BESIDE: Final = re.compile(r"(\w+)_0\.db\.(\d+)")


@contextmanager
def ended_merged(folder: Path) -> Iterator[None]:
    """Keep of processes that have ended their totals alone, in one file a kind, while the folder is read.

    Counts and histograms are added up, of a ``max`` the greatest stays, and what is shown of living processes goes.
    Where a process is killed at this, nothing is lost or counted twice: a new total is written beside the old one, and
    put in its place once the file that it takes in has gone. A file system without locks keeps all files.
    """
    descriptor = _alone(folder)
    try:
        if descriptor is not None:
            _finish(folder)
            for file in sorted(folder.glob("*.db")):
                match = _FILE.fullmatch(file.name)
                if match is not None and not runs(int(match[2])):
                    _take_in(file, match[1], match[2])
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _alone(folder: Path) -> int | None:
    """Keep other readers away until the descriptor is closed; None where that cannot be."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _finish(folder: Path) -> None:
    """Finish or undo what a process was killed at."""
    for beside in folder.glob("*_0.db.*"):
        match = _BESIDE.fullmatch(beside.name)
        if match is None:
            continue
        if (folder / f"{match[1]}_{match[2]}.db").exists():
            beside.unlink()
        else:
            beside.replace(folder / _TOTAL.format(match[1]))


def _take_in(file: Path, kind: str, pid: str) -> None:
    """Add the file of a process that has ended to the total of its kind."""
    if kind.startswith("gauge_live") or not file.stat().st_size:
        file.unlink()
        return
    if kind not in {"counter", "histogram", "gauge_max"}:
        return
    total = file.with_name(_TOTAL.format(kind))
    values: dict[str, float] = {}
    for each in (total, file):
        if each.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(each)):  # type: ignore[no-untyped-call]
                before = values.get(key, 0.0)
                values[key] = max(before, value) if kind == "gauge_max" else before + value
    beside = total.with_name(f"{total.name}.{pid}")
    written = MmapedDict(str(beside))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    file.unlink()
    beside.replace(total)
