"""Break glass: for a while, what becomes of an image when the guard cannot do its job is decided otherwise.

The override is a small file that every guard of this user reads before a generation. It ends by itself, every guard
records that it takes effect, and a policy with a sensitive category takes no notice of it.
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
"""An override that is needed for longer is a change of policy."""

_VARIABLE: Final = "DNP_GUARD_OVERRIDE"


@dataclass(frozen=True, slots=True)
class Override:
    """What is decided otherwise, until when, by whom and why."""

    on_failure: OnFailure
    until: datetime
    actor: str
    reason: str

    def __str__(self) -> str:
        return f"on_failure {self.on_failure} until {self.until:%Y-%m-%dT%H:%M:%SZ} by {self.actor}: {self.reason}"


def path() -> Path | None:
    """Where the override lies: ``$DNP_GUARD_OVERRIDE``, or a file among the user's state.

    None for a user without a home, for whom none can be in force.
    """
    return state_path("override.json", _VARIABLE)


def length(text: str) -> timedelta:
    """Read how long an override is to last, such as ``30m`` or ``2h``.

    Raises:
        DnpGuardError: it is no length of time, nothing, or longer than :data:`LONGEST`.
    """
    if not timedelta(0) < (asked := duration(text)) <= LONGEST:
        raise DnpGuardError(f"{text!r} is not up to 24 hours", hint="Write 30m, 2h or 90s.")
    return asked


def write(override: Override, to: Path) -> None:
    """Put an override in force, in place of the one before.

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
    """The override in force; None where there is none, it has ended, or it cannot be read."""
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
    """The override that a guard found last, so that a change is told once."""

    def __init__(self) -> None:
        self._found: Override | None = None

    def applied(self, policy: Policy) -> tuple[Policy, str]:
        """Look for an override and put the policy under it.

        Returns:
            The policy, and how the override changed since the last call; empty where it did not.
        """
        found, before = in_force(path(), datetime.now(UTC)), self._found
        self._found = found
        changed = "" if found == before else str(found) if found else f"ended: {before}"
        return overridden(policy, found), changed


def overridden(policy: Policy, override: Override | None) -> Policy:
    """The policy under an override; its digest stays that of the policy.

    A policy with a sensitive category stays as it is.
    """
    if override is None or any(category.sensitive for category in policy.categories):
        return policy
    _ = policy.digest  # fixed before the copy, which keeps it
    return policy.model_copy(update={"on_failure": override.on_failure})
