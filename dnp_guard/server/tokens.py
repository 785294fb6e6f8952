"""The token file: which tokens may use the service, with their tenants, hosts and policies. It holds only hashes.

A token is 32 random bytes, so its plain SHA-256 reveals nothing about it.
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
"""Role of a person in the console."""


class Grant(BaseModel):
    """Permissions of one token's holder.

    Attributes:
        sha256: SHA-256 of the token, in hexadecimal.
        name: name for people to read.
        tenant: tenant of its sessions; the tenant selects a policy from a store, and is written to every record.
        hosts: names of hosts that may use it; empty for any.
        policies: paths or shipped names of stricter policies that a session may request.
        expires: time at which the token expires; None for never.
        role: role of a person who signs in to the console with it. A token with a role cannot open sessions; a token
            without one is for hosts, and cannot sign in.
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
"""The grant that applies without a token file."""


class Tokens:
    """The grants of a token file, read again whenever it changes, so that a token can be revoked at once.

    Args:
        path: path of the file; None admits everyone on this machine.
        clock: returns the current time with its zone.

    Raises:
        DnpGuardError: the file cannot be read, or is not a token file.
    """

    def __init__(self, path: Path | None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._path, self._clock, self._lock = path, clock, Lock()
        self._content = b""
        self._grants: tuple[Grant, ...] = () if path is not None else (ANYONE,)
        self._read()

    @property
    def open(self) -> bool:
        """Whether everyone on this machine is admitted."""
        return self._path is None

    @property
    def all(self) -> tuple[Grant, ...]:
        """Every grant in the file, expired ones included."""
        return self._grants

    def grant(self, authorization: str | None) -> Grant | None:
        """Return the grant of the token in an ``Authorization`` header; None if it is missing, unknown or expired.

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
        match = None
        for grant in self._grants:  # compare with all, so that timing reveals nothing
            if hmac.compare_digest(grant.sha256, digest):
                match = grant
        return self._in_time(match)

    def by_digest(self, digest: str) -> Grant | None:
        """Return the current grant of a person who has signed in; None if it was revoked or has expired.

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
        # Compare content, not time and size: a file edited in place, or copied, can keep both.
        if content != self._content:
            with self._lock:
                self._grants, self._content = _parsed(self._path, content).tokens, content


def add(path: Path, **granted: object) -> str:
    """Make a token, and add its grant to a file, which is created if missing.

    Args:
        path: path of the token file.
        granted: attributes of the :class:`Grant`.

    Returns:
        The token, which is stored nowhere.

    Raises:
        DnpGuardError: the file is not a token file, or cannot be written.
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
    """Lock the folder against other writers; the file cannot be locked, because a write replaces it."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks: at most one operator may write at a time
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        if sys.platform != "win32" and os.fstat(file.fileno()).st_mode & 0o022:
            raise DnpGuardError(f"{path}: users other than its owner may write it", hint=f"chmod go-w {path}")
        return file.read()


def _parsed(path: Path, content: bytes) -> _File:
    try:
        return _File.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        wrong = f"{place}: {first['msg']}" if place else first["msg"]
        raise DnpGuardError(
            f"{path} is not a token file: {wrong}", hint="Make one with: dnp-guard token add FILE"
        ) from error


def _write(path: Path, content: _File) -> None:
    document = content.model_dump(mode="json", exclude_defaults=True) | {"format": content.format}
    write_whole(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", private=True)


def _unreadable(path: Path, error: OSError) -> DnpGuardError:
    return DnpGuardError(f"{path}: {error.strerror}", hint="Make one with: dnp-guard token add FILE")
