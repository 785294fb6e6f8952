"""Break glass: change for a limited time what happens when the guard cannot do its job.

The override is a small file that every guard of this user reads before a generation. It expires by itself, every guard
records that it takes effect, and a policy with a sensitive category ignores it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from dnp_guard.errors import DnpGuardError
from dnp_guard.files import duration, state_path, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from dnp_guard.policy import Policy

OnFailure = Literal["closed", "open", "last"]
LONGEST: Final = timedelta(hours=24)
"""Longest override; for a longer time, change the policy."""

_VARIABLE: Final = "DNP_GUARD_OVERRIDE"


@dataclass(frozen=True, slots=True)
class Override:
    """A temporary replacement for a policy's ``on_failure``: its value, when it expires, who set it, and why."""

    on_failure: OnFailure
    until: datetime
    actor: str
    reason: str

    def __str__(self) -> str:
        return f"on_failure {self.on_failure} until {self.until:%Y-%m-%dT%H:%M:%SZ} by {self.actor}: {self.reason}"


def path() -> Path | None:
    """Return the path of the override file: ``$DNP_GUARD_OVERRIDE``, or ``override.json`` in the user's state folder.

    None for a user without a home, who can have no override.
    """
    return state_path("override.json", _VARIABLE)


def length(text: str) -> timedelta:
    """Parse the duration of an override, such as ``30m`` or ``2h``.

    Raises:
        DnpGuardError: the text is not a duration, or the duration is zero or longer than :data:`LONGEST`.
    """
    if not timedelta(0) < (requested := duration(text)) <= LONGEST:
        raise DnpGuardError(f"{text!r} is not up to 24 hours", hint="Write 30m, 2h or 90s.")
    return requested


def write(override: Override, to: Path) -> None:
    """Write an override to the file that guards read, in place of an earlier override.

    Raises:
        OSError: the file cannot be written.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "on_failure": override.on_failure,
        "until": override.until.isoformat(),
        "actor": override.actor,
        "reason": override.reason,
    }
    write_whole(to, json.dumps(data), private=True)


def in_force(at: Path | None, now: datetime) -> Override | None:
    """Read the override file; return None if the file is missing or invalid, or if the override has expired."""
    if at is None:
        return None
    try:
        data: Any = json.loads(at.read_bytes())
        until = datetime.fromisoformat(data["until"]).astimezone(UTC)
        override = Override(cast("OnFailure", data["on_failure"]), until, str(data["actor"]), str(data["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = override.on_failure in get_args(OnFailure)
    return override if known and now < until <= now + LONGEST else None


class Current:
    """Remembers the override that a guard found last, so that each change is reported only once."""

    def __init__(self) -> None:
        self._found: Override | None = None

    def applied(self, policy: Policy) -> tuple[Policy, str]:
        """Look for an override, and apply it to a policy.

        Returns:
            The policy with the override, and a description of the override if it changed since the last call; else "".
        """
        current, before = in_force(path(), datetime.now(UTC)), self._found
        self._found = current
        changed = "" if current == before else str(current) if current else f"ended: {before}"
        return overridden(policy, current), changed


def overridden(policy: Policy, override: Override | None) -> Policy:
    """Apply an override to a policy; the digest of the policy stays the same.

    A policy with a sensitive category is returned unchanged.
    """
    if override is None or any(category.sensitive for category in policy.categories):
        return policy
    _ = policy.digest  # compute it before the copy, which keeps it
    return policy.model_copy(update={"on_failure": override.on_failure})
