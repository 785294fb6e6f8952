"""Paths of a user's files, atomic writing, and parsing of durations."""

from __future__ import annotations

import os
import re
import secrets
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PRIVATE: Final = 0o600
_SHARED: Final = 0o666  # less the umask


def state_path(name: str, variable: str) -> Path | None:
    """Return the path of a file or folder among the user's state, by default in ``~/.local/state/dnp-guard``.

    Args:
        name: name of the file or folder.
        variable: environment variable that may give another path.

    Returns:
        The path; None if the user has no home and the environment names no folder.
    """
    return _of_user(name, variable, "XDG_STATE_HOME", ".local/state")


def cache_path(name: str, variable: str) -> Path | None:
    """Return the path of a file or folder in the user's cache; see :func:`state_path`."""
    return _of_user(name, variable, "XDG_CACHE_HOME", ".cache")


def _of_user(name: str, variable: str, folders: str, at_home: str) -> Path | None:
    if path := os.environ.get(variable):
        return Path(path)
    if folder := os.environ.get(folders):
        return Path(folder, "dnp-guard", name)
    try:
        return Path.home() / at_home / "dnp-guard" / name
    except RuntimeError:  # in a container, a user may have neither an entry nor HOME
        return None


def create_private(path: Path) -> BinaryIO:
    """Create a file that only its owner may read, and open it for writing.

    Raises:
        OSError: the file already exists or cannot be created.
    """
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, _PRIVATE))


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Write a file atomically: yield the path of an empty draft, which replaces the file when the block ends.

    An existing file keeps its mode and group, and a link stays a link.

    Args:
        path: the file to write.
        private: whether only the owner may read a new file.

    Raises:
        OSError: the file cannot be written; the old content stays.
    """
    path = path.resolve()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    before = path.stat() if path.exists() else None
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE if private else _SHARED))
    try:
        if before is not None:
            if sys.platform != "win32" and before.st_gid != draft.stat().st_gid:
                os.chown(draft, -1, before.st_gid)
            draft.chmod(before.st_mode & 0o777)
        yield draft
        with draft.open("r+b") as written:
            os.fsync(written.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_whole(path: Path, text: str, *, private: bool = False) -> None:
    """Write a text to a file atomically; see :func:`replacing`."""
    with replacing(path, private=private) as draft:
        draft.write_text(text, encoding="utf-8")


def duration(text: str) -> timedelta:
    """Parse a duration such as ``90s``, ``30m``, ``2h``, ``90d`` or ``2w``.

    Raises:
        DnpGuardError: the text is not a duration.

    >>> duration("2w").days
    14
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if match is None:
        raise DnpGuardError(f"{text!r} is not a duration", hint="Write 90s, 30m, 2h, 90d or 2w.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
