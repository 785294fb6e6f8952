"""Merge the files that ended workers leave in the folder of prometheus_client's multiprocess mode."""

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
"""Name of the total of all ended processes, by kind of metric; no process has the id 0."""
_BESIDE: Final = re.compile(r"(\w+)_0\.db\.(\d+)")


@contextmanager
def ended_merged(folder: Path) -> Iterator[None]:
    """Merge the files of ended processes into one total per kind of metric, and lock the folder in the ``with`` block.

    Counters and histograms are summed. Of ``max`` gauges the maximum stays. The ``live`` gauges of an ended process are
    deleted. If a process is killed during the merge, nothing is lost or counted twice: the new total is written beside
    the old one, and replaces it after the merged file is deleted. On a file system without locks, nothing is merged.
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
    """Lock the folder, and return a descriptor that unlocks it when closed; None if the folder cannot be locked."""
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
    """Finish or undo the merge of a process that was killed during it."""
    for beside in folder.glob("*_0.db.*"):
        match = _BESIDE.fullmatch(beside.name)
        if match is None:
            continue
        if (folder / f"{match[1]}_{match[2]}.db").exists():
            beside.unlink()
        else:
            beside.replace(folder / _TOTAL.format(match[1]))


def _take_in(file: Path, kind: str, pid: str) -> None:
    """Add an ended process's file of metrics to the total of its kind, and delete the file.

    A file of ``live`` gauges is only deleted. A file of a kind without a total is left as it is.
    """
    if kind.startswith("gauge_live") or not file.stat().st_size:
        file.unlink()
        return
    if kind not in {"counter", "histogram", "gauge_max"}:
        return
    total = file.with_name(_TOTAL.format(kind))
    values: dict[str, float] = {}
    for source in (total, file):
        if source.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):  # type: ignore[no-untyped-call]
                before = values.get(key, 0.0)
                values[key] = max(before, value) if kind == "gauge_max" else before + value
    beside = total.with_name(f"{total.name}.{pid}")
    written = MmapedDict(str(beside))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    file.unlink()
    beside.replace(total)
