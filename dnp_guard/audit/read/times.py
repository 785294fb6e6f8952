"""Times and periods as people write them on a command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dnp_guard.errors import AuditError, DnpGuardError
from dnp_guard.files import duration

if TYPE_CHECKING:
    from datetime import timedelta


def period(text: str) -> timedelta:
    """Read a length of time such as ``90d`` or ``36h``; days where there is no unit.

    Raises:
        DnpGuardError: it is none.

    >>> period("90").days
    90
    """
    return duration(f"{text}d" if text.strip().isdecimal() else text)


def moment(text: str, now: datetime | None = None) -> str:
    """A date, a time (UTC where it has no zone) or a period before now, as records write time.

    Raises:
        AuditError: it is neither.

    >>> moment("2026-01-01")
    '2026-01-01T00:00:00.000Z'
    """
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            time = (now or datetime.now(UTC)) - period(text)
        except DnpGuardError as error:
            raise AuditError(
                f"{text!r} is neither a time nor a length of time", hint="Write 2026-01-31, 2026-01-31T12:00 or 7d."
            ) from error
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
