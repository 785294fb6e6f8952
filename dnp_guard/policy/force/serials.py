"""Store the highest serial number of every signed policy that was in force here, so that no older one returns."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import state_path, write_whole

if TYPE_CHECKING:
    from pathlib import Path

_VARIABLE = "DNP_GUARD_SERIALS"


def path() -> Path:
    """Return the file that stores serials: ``$DNP_GUARD_SERIALS``, or a file in the user's state folder.

    Raises:
        DnpGuardError: the user has no home folder.
    """
    if (file := state_path("serials.json", _VARIABLE)) is None:
        raise DnpGuardError(
            "this user has no home folder to store the serials of signed policies", hint=f"Name a file in {_VARIABLE}."
        )
    return file


def key_of(public: str, name: str, tenant: str) -> str:
    """Return the key under which a policy's serial is stored: a hash of public key, policy name and tenant."""
    return hashlib.sha256(f"{public.strip()}\0{name}\0{tenant}".encode()).hexdigest()


Kept = tuple[int, str]
"""A serial, and the digest of the files signed under it; "" if an older version stored none."""


def highest(file: Path, key: str) -> Kept:
    """Return the highest serial stored under a key, and the digest of its files; 0 and "" if there is none.

    Raises:
        DnpGuardError: the file exists but cannot be read, so that the serial is unknown.
    """
    return _read(file).get(key, (0, ""))


def keep(file: Path, key: str, serial: int, digest: str) -> None:
    """Store a serial and the digest of the files signed with it, unless a higher serial is stored.

    Raises:
        DnpGuardError: the serial cannot be stored.
    """
    stored = _read(file)
    if (serial, digest) == stored.get(key) or serial < stored.get(key, (0, ""))[0]:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({**stored, key: (serial, digest)}), private=True)
    except OSError as error:
        hint = f"Make {file.parent} writable, or name another file in {_VARIABLE}."
        raise DnpGuardError(f"{file}: the serial of a policy cannot be stored: {error.strerror}", hint=hint) from error


def _read(file: Path) -> dict[str, Kept]:
    try:
        stored: Any = json.loads(file.read_bytes())
        pairs = {str(key): of if isinstance(of, list) else [of, ""] for key, of in stored.items()}
        return {key: (int(serial), str(digest)) for key, (serial, digest) in pairs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        hint = "Restore the file; without it, an older policy could return."
        raise DnpGuardError(f"{file}: the serials of signed policies cannot be read", hint=hint) from error
