"""What worker processes that have ended leave in the folder of prometheus_client's multiprocess mode."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from prometheus_client.mmap_dict import MmapedDict

from dnp_guard.audit.lock import locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILE: Final = re.compile(r"(counter|histogram|summary|gauge_[a-z]+)_(\d+)\.db")
_SUMMED: Final = frozenset({"counter", "histogram", "summary", "gauge_sum"})
_CHOSEN: Final = {"gauge_max": max, "gauge_min": min}
_ENDED: Final = "0"
"""Stands for all that have ended, where a file's name has a process id."""


@contextmanager
def ended_merged(folder: Path) -> Iterator[None]:
    """Keep of processes that have ended the totals alone, in one file a kind, while the folder is read.

    Counts and histograms are added up, and what is shown of living processes goes. A process that is killed meanwhile
    loses and doubles nothing: the sum is written beside, and put in its place once the file that it takes in has gone.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with locked(descriptor):
            _merge(folder)
            yield
    finally:
        os.close(descriptor)


def _merge(folder: Path) -> None:
    for left in folder.glob("*.sum-*"):  # of a process that was killed here
        total, _, source = left.name.partition(".sum-")
        if (folder / source).exists():
            left.unlink()
        else:
            left.replace(folder / total)
    for file in sorted(folder.glob("*.db")):
        match = _FILE.fullmatch(file.name)
        if match is None or match[2] == _ENDED or _runs(int(match[2])):
            continue
        if match[1].startswith("gauge_live") or not file.stat().st_size:
            file.unlink()
        elif match[1] in _SUMMED or match[1] in _CHOSEN:
            _take_in(folder / f"{match[1]}_{_ENDED}.db", file, match[1])


def _take_in(total: Path, file: Path, kind: str) -> None:
    """Add a file to the one of all that have ended."""
    values: dict[str, float] = {}
    for each in (total, file):
        if each.exists():
            for key, value, _, _ in MmapedDict.read_all_values_from_file(str(each)):  # type: ignore[no-untyped-call]
                together = _CHOSEN.get(kind, lambda pair: sum(pair))
                values[key] = together((values[key], value)) if key in values else value
    beside = total.with_name(f"{total.name}.sum-{file.name}")
    written = MmapedDict(str(beside))  # type: ignore[no-untyped-call]
    for key, value in values.items():
        written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
    written.close()  # type: ignore[no-untyped-call]
    file.unlink()
    beside.replace(total)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
