"""The files of a log: the current one, such as ``audit.jsonl``, and the rotated ones.

A rotated file is named after the position of its first record: ``audit.jsonl.000000051200``. The hash chain continues
from one file to the next.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_DIGITS: Final = 12


def segment(log: Path, first: int) -> Path:
    """Return the path that the current file of a log gets when it is rotated.

    Args:
        log: the current file.
        first: ``seq`` of its first record.
    """
    return log.with_name(f"{log.name}.{first:0{_DIGITS}d}")


def segments(log: Path) -> list[Path]:
    """List the rotated files of a log, the oldest first.

    Raises:
        OSError: the folder cannot be read.
    """
    named = re.compile(rf"{re.escape(log.name)}\.([0-9]{{{_DIGITS},}})")
    files = [(int(match[1]), path) for path in log.parent.iterdir() if (match := named.fullmatch(path.name))]
    return [path for _, path in sorted(files)]


def index_file(log: Path) -> Path:
    """Return the path of the index that the web console makes of a log, and can rebuild from the log."""
    return log.with_name(f"{log.name}.index")


def forget_index(log: Path) -> None:
    """Remove the web console's index of a log, so that it is rebuilt without records that were removed."""
    for ending in ("", "-wal", "-shm"):
        index_file(log).with_name(f"{log.name}.index{ending}").unlink(missing_ok=True)
