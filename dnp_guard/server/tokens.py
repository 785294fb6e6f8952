"""Who may ask: a file of tokens, each for a tenant, for hosts and for policies. The tokens themselves are not in it.

A token is 32 random bytes, so its plain SHA-256 tells nothing about it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import write_whole

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


Role = Literal["moderator", "policy_owner", "auditor"]
"""What a person may do in the console."""


class Grant(BaseModel):
    """What one token lets its holder do.

    Attributes:
        sha256: of the token, in hexadecimal.
        name: for people.
        tenant: whom sessions are for: selects from a store of policies, and is written to every record.
        hosts: names of hosts that may use it; none lets any.
        policies: paths or shipped names of policies that a session may ask for, to be stricter by.
        expires: when it ends.
        role: of a person who signs in to the console with it; None for a token of hosts, which is no good there, as one
            with a role is none for sessions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    name: str = ""
    tenant: str | None = None
    hosts: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    expires: AwareDatetime | None = None
    role: Role | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1]
    tokens: tuple[Grant, ...]


ANYONE = Grant(sha256="0" * 64, name="anyone on this machine")
"""What holds where there is no token file."""


class Tokens:
    """The grants of a file, read again when it changes, so that a token can be taken back at once.

    Args:
        path: of the file; None lets everyone in.
        clock: tells the time, with its zone.

    Raises:
        DnpGuardError: it cannot be read, or is no token file.
    """

    def __init__(self, path: Path | None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path, self._clock, self._lock = path, clock, Lock()
        self._content = b""
        self._grants: tuple[Grant, ...] = () if path is not None else (ANYONE,)
        self._read()

    @property
    def open(self) -> bool:
        """Whether anyone on this machine is let in."""
        return self._path is None

    @property
    def all(self) -> tuple[Grant, ...]:
        """Every grant, expired ones included."""
        return self._grants

    def grant(self, authorization: str | None) -> Grant | None:
        """The grant of an ``Authorization`` header; None where it has none.

        A file that has become unreadable grants nothing.
        """
        if self._path is None:
            return ANYONE
        try:
            self._read()
        except DnpGuardError:
            return None
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).hexdigest()
        found = None
        for each in self._grants:  # all of them, so that the time tells nothing
            if hmac.compare_digest(each.sha256, digest):
                found = each
        return self._in_time(found)

    def by_digest(self, digest: str) -> Grant | None:
        """The grant of a person who has signed in, as it is now; None where it was taken back or has expired.

        Args:
            digest: SHA-256 of the token.
        """
        if self._path is None:
            return None
        try:
            self._read()
        except DnpGuardError:
            return None
        return self._in_time(next((grant for grant in self._grants if grant.sha256 == digest), None))

    def _in_time(self, grant: Grant | None) -> Grant | None:
        return grant if grant is not None and (grant.expires is None or self._clock() < grant.expires) else None

    def _read(self) -> None:
        if self._path is None:
            return
        try:
            content = _content(self._path)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        # By content, and not by time and size: those of a file edited in place, or copied, can be the same.
        if content != self._content:
            with self._lock:
                self._grants, self._content = _parsed(self._path, content).tokens, content


def add(path: Path, **granted: object) -> str:
    """Make a token, and write what it grants to a file, which is made where it is not there.

    Args:
        path: of the token file.
        granted: for whom and for what, as the attributes of :class:`Grant`.

    Returns:
        The token, which is kept nowhere.

    Raises:
        DnpGuardError: the file is no token file, or cannot be written.
    """
    token = secrets.token_urlsafe(32)
    sealed = Grant.model_validate({**granted, "sha256": hashlib.sha256(token.encode()).hexdigest()})
    path = path.resolve()
    if not path.parent.is_dir():
        raise DnpGuardError(f"{path.parent}: there is no such folder", hint=f"mkdir -p {path.parent}")
    try:
        with _alone(path.parent):
            before = _parsed(path, _content(path)).tokens if path.exists() else ()
            _write(path, _File(format=1, tokens=(*before, sealed)))
    except OSError as error:
        raise DnpGuardError(
            f"{path}: {error.strerror}", hint="Write it as its owner, where there is room, or name another file."
        ) from error
    return token


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other writers of the same folder away; the file itself will not do, as each writer puts a new one."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: one operator at a time, as anywhere
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        if sys.platform != "win32" and os.fstat(file.fileno()).st_mode & 0o022:
            raise DnpGuardError(f"{path}: others than its owner may write who is let in", hint=f"chmod go-w {path}")
        return file.read()


def _parsed(path: Path, content: bytes) -> _File:
    try:
        return _File.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        wrong = f"{place}: {first['msg']}" if place else first["msg"]
        raise DnpGuardError(
            f"{path} is no token file: {wrong}", hint="Make one with: dnp-guard token add FILE"
        ) from error


def _write(path: Path, content: _File) -> None:
    document = content.model_dump(mode="json", exclude_defaults=True) | {"format": content.format}
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", private=True)


def _unreadable(path: Path, error: OSError) -> DnpGuardError:
    return DnpGuardError(f"{path}: {error.strerror}", hint="Make one with: dnp-guard token add FILE")
