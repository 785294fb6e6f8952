"""Parse times and periods as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from dnp_guard.errors import AuditError, DnpGuardError
from dnp_guard.files import duration

_ISO: Final = re.compile(
    r"P(?=.)(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,6})D)?"
    r"(?:T(?=.)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?"
)


def period(text: str) -> timedelta:
    """Parse a period such as ``90d``, ``36h`` or, in ISO 8601, ``P90D``; the default unit is days.

    A month of ISO 8601 has 31 days and a year 366, so that no record is considered too old by mistake.

    Raises:
        DnpGuardError: the text is not a period.

    >>> period("90").days
    90
    >>> period("P1M").days
    31
    """
    if (match := _ISO.fullmatch(text.strip())) is not None:
        years, months, weeks, days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return timedelta(366 * years + 31 * months + 7 * weeks + days, hours=hours, minutes=minutes, seconds=seconds)
    return duration(f"{text}d" if text.strip().isdecimal() else text)


def keeping(text: str) -> timedelta:
    """Parse a retention period as :func:`period` does, but refuse ``m``: it means minutes, and people may mean months.

    Raises:
        DnpGuardError: the text is not a period, or uses ``m``.
    """
    if match := re.fullmatch(r"(\d+)\s*m", text.strip()):
        number = match[1]
        raise AuditError(
            f"{text!r} means {number} minutes here, but people may mean {number} months",
            hint=f"Write P{number}M for months, PT{number}M for minutes, or days such as 90d.",
        )
    return period(text)


def moment(text: str, now: datetime | None = None) -> str:
    """Parse a date, a time (UTC by default), or a period before now, and return the time in the format of records.

    Raises:
        AuditError: the text is none of these.

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
                f"{text!r} is neither a time nor a period", hint="Write 2026-01-31, 2026-01-31T12:00 or 7d."
            ) from error
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
