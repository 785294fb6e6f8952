"""Break glass: for a while, what becomes of an image when the guard cannot do its job is decided otherwise.

The override is a small file that every guard of this user reads before a generation. It ends by itself, every guard
records that it takes effect, and a policy with a sensitive category takes no notice of it.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from dnp_guard.errors import DnpGuardError

if TYPE_CHECKING:
    from dnp_guard.policy import Policy

OnFailure = Literal["closed", "open", "last"]
LONGEST: Final = timedelta(hours=24)
"""An override that is needed for longer is a change of policy."""

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours"}
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


def path() -> Path:
    """Where the override lies: ``$DNP_GUARD_OVERRIDE``, or a file among the user's state."""
    if named := os.environ.get(_VARIABLE):
        return Path(named)
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "dnp-guard" / "override.json"


def duration(text: str) -> timedelta:
    """A time such as ``30m`` or ``2h``.

    Raises:
        DnpGuardError: it is none, or longer than :data:`LONGEST`.
    """
    match = re.fullmatch(r"([1-9]\d{0,5})([smh])", text)
    length = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match else None
    if length is None or length > LONGEST:
        raise DnpGuardError(f"{text!r} is no time up to 24 hours", hint="Write 30m, 2h or 90s.")
    return length


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
    descriptor, name = tempfile.mkstemp(dir=to.parent)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(data, file)
    Path(name).replace(to)


def in_force(at: Path, now: datetime) -> Override | None:
    """The override in force; None where there is none, it has ended, or it cannot be read."""
    try:
        data: Any = json.loads(at.read_bytes())
        until = datetime.fromisoformat(data["until"]).astimezone(UTC)
        override = Override(cast("OnFailure", data["on_failure"]), until, str(data["actor"]), str(data["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = override.on_failure in get_args(OnFailure)
    return override if known and now < until <= now + LONGEST else None


def overridden(policy: Policy, override: Override | None) -> Policy:
    """The policy under an override; its digest stays that of the policy.

    A policy with a sensitive category stays as it is.
    """
    if override is None or any(category.sensitive for category in policy.categories):
        return policy
    _ = policy.digest  # fixed before the copy, which keeps it
    return policy.model_copy(update={"on_failure": override.on_failure})
