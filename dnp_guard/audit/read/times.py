"""Times and periods as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from dnp_guard.errors import AuditError

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}


def period(text: str) -> timedelta:
    """A period such as ``90d``, ``36h``, ``30m`` or ``2w``; days where there is no unit.

    Raises:
        AuditError: it is none.

    >>> period("2w").days
    14
    """
    match = re.fullmatch(r"(\d{1,6})([dhmw]?)", text.strip())
    if match is None:
        raise AuditError(f"{text!r} is not a period", hint="Write 90d, 36h, 30m or 2w.")
    return timedelta(**{_UNITS[match[2] or "d"]: int(match[1])})


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
        except AuditError as error:
            raise AuditError(
                f"{text!r} is neither a time nor a period", hint="Write 2026-01-31, 2026-01-31T12:00 or 7d."
            ) from error
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
