"""The highest serial of each signed policy that was in force on this machine, so that a restart does not forget it."""

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
    """Where serials are kept: ``$DNP_GUARD_SERIALS``, or a file among the user's state.

    Raises:
        DnpGuardError: the user has no home to keep them in.
    """
    if (file := state_path("serials.json", _VARIABLE)) is None:
        raise DnpGuardError(
            "this user has no home to keep the serials of signed policies in", hint=f"Name a file in {_VARIABLE}."
        )
    return file


def key_of(public: str, name: str, tenant: str) -> str:
    """What a serial is kept under: the public key, the policy's name and the tenant."""
    return hashlib.sha256(f"{public.strip()}\0{name}\0{tenant}".encode()).hexdigest()


Kept = tuple[int, str]
"""A serial, and the digest of the files that were signed under it; "" where an older version kept none."""


def highest(file: Path, key: str) -> Kept:
    """The highest serial kept; 0 where there is none.

    Raises:
        DnpGuardError: the file is there and cannot be read, so that nobody can tell.
    """
    return _read(file).get(key, (0, ""))


def keep(file: Path, key: str, serial: int, digest: str) -> None:
    """Keep a serial with what was signed under it, where it is no lower than what is kept.

    Raises:
        DnpGuardError: it cannot be kept.
    """
    kept = _read(file)
    if (serial, digest) == kept.get(key) or serial < kept.get(key, (0, ""))[0]:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps({**kept, key: (serial, digest)}), private=True)
    except OSError as error:
        hint = f"Make {file.parent} writable, or name another file in {_VARIABLE}."
        raise DnpGuardError(f"{file}: the serial of a policy cannot be kept: {error.strerror}", hint=hint) from error


def _read(file: Path) -> dict[str, Kept]:
    try:
        kept: Any = json.loads(file.read_bytes())
        pairs = {str(key): of if isinstance(of, list) else [of, ""] for key, of in kept.items()}
        return {key: (int(serial), str(digest)) for key, (serial, digest) in pairs.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        hint = "Restore the file; without it, an older policy could come back."
        raise DnpGuardError(f"{file}: the serials of signed policies cannot be read", hint=hint) from error
