"""Where a user's files lie, how they are written whole, and how people write a length of time."""

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
    """Find a file or folder of the user's state.

    Args:
        name: what it is called in the state folder.
        variable: the environment variable that may name another path for it.

    Returns:
        None for a user who has no home, in an environment that names no folder.
    """
    return _of_user(name, variable, "XDG_STATE_HOME", ".local/state")


def cache_path(name: str, variable: str) -> Path | None:
    """Find a file or folder of the user's cache; see :func:`state_path`."""
    return _of_user(name, variable, "XDG_CACHE_HOME", ".cache")


def _of_user(name: str, variable: str, folders: str, at_home: str) -> Path | None:
    if path := os.environ.get(variable):
        return Path(path)
    if folder := os.environ.get(folders):
        return Path(folder, "dnp-guard", name)
    try:
        return Path.home() / at_home / "dnp-guard" / name
    except RuntimeError:  # in a container, a user may have no entry and no HOME
        return None


def create_private(path: Path) -> BinaryIO:
    """Open a new file that only its owner may read, for writing.

    Raises:
        OSError: it is there already, or cannot be made.
    """
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, _PRIVATE))


@contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Write a file whole or not at all: yield an empty draft beside it, which takes its place afterwards.

    A file that is there keeps its mode and its group, and a link stays a link.

    Args:
        path: the file to write.
        private: whether only its owner may read a new one.

    Raises:
        OSError: it cannot be written; what was there stays.
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
    """Write a text whole or not at all; see :func:`replacing`."""
    with replacing(path, private=private) as draft:
        draft.write_text(text, encoding="utf-8")


def duration(text: str) -> timedelta:
    """Read a length of time such as ``90s``, ``30m``, ``2h``, ``90d`` or ``2w``.

    Raises:
        DnpGuardError: it is none.

    >>> duration("2w").days
    14
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhdw])", text.strip())
    if match is None:
        raise DnpGuardError(f"{text!r} is no length of time", hint="Write 90s, 30m, 2h, 90d or 2w.")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
