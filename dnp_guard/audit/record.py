"""Build the audit record of an event: a JSON object with name and time, without values that JSON cannot represent."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from numbers import Integral, Real
from typing import Any, Final

from dnp_guard.canonical import measured
from dnp_guard.errors import AuditError

FORMAT: Final = 1
"""The ``v`` of every record."""

MEASURED: Final = frozenset({"probability", "sigma", "latency_ms"})
"""Fields whose floats are measurements, written with six significant digits."""

LONGEST: Final = 10_000
"""Most characters of a string; a longer one is cut."""

MOST: Final = 2_000
"""Most items of a list; a longer one is cut."""

TOGETHER: Final = 200_000
"""Most characters in all strings of a list together, so that a record fits into a line."""

_OURS = frozenset({"v", "time", "seq", "prev", "hash"})
_SAFE_INTEGER = 2**53 - 1
_BREAKS = re.compile(r"[\t\n\v\f\r\x85\u2028\u2029]+")
_INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")


def build(event: str, *, at: datetime | None = None, **values: object) -> dict[str, Any]:
    """Build the record of one event, to which a sink adds the position in the log and the hashes.

    Args:
        event: name of the event; see :mod:`dnp_guard.audit.events`.
        at: time of the event; now by default.
        values: the other fields of the record. Fields that are None are left out, also in nested mappings. Dataclasses
            become objects; named tuples and other sequences become arrays.

    Returns:
        A mapping of JSON values. Control and bidirectional characters are removed from strings, which are cut to
        :data:`LONGEST` characters. Lists are cut to :data:`MOST` items, and their strings to :data:`TOGETHER`
        characters in total. Numbers that JSON cannot represent (NaN, infinities, integers beyond ±(2⁵³-1)) become
        strings, as in protobuf's JSON.

    Raises:
        AuditError: a field has a name that only the log writes, such as ``seq``, or a value has a type that JSON lacks.
    """
    if taken := sorted(_OURS & values.keys()):
        raise AuditError(f"the log itself writes the audit field {taken[0]!r}", hint="Leave it out.")
    stamp = (at or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {"v": FORMAT, "time": stamp, "event": event, **_object(values, "")}


def clean(text: str) -> str:
    """Make a string safe for a log: one line, without control or bidirectional characters, of limited length."""
    if text.isascii() and text.isprintable() and len(text) <= LONGEST:
        return text  # the usual case
    line = _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _INVISIBLE.sub("", _BREAKS.sub(" ", text)))
    return _cut(line, LONGEST)


def _object(values: Mapping[Any, object], where: str) -> dict[str, Any]:
    plain = {clean(str(key)): _value(value, f"{where}{key}") for key, value in values.items() if value is not None}
    for key in MEASURED & plain.keys():
        if isinstance(value := plain[key], float):
            plain[key] = measured(value)
    return plain


def _value(value: object, where: str) -> Any:  # noqa: PLR0911 (one return per JSON type)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, float):
        return _float(float(value))
    if isinstance(value, Integral):
        return int(value) if abs(int(value)) <= _SAFE_INTEGER else str(int(value))
    if isinstance(value, Real):
        return _float(float(value))
    if isinstance(value, dict):
        return _object(value, f"{where}.")
    if is_dataclass(value) and not isinstance(value, type):
        return _object({field.name: getattr(value, field.name) for field in fields(value)}, f"{where}.")
    if isinstance(value, Mapping):
        return _object(value, f"{where}.")
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _bounded([_value(item, f"{where}[{index}]") for index, item in enumerate(value[:MOST])], len(value))
    raise AuditError(
        f"the audit field {where} contains a {type(value).__name__}, which is not JSON",
        hint="Pass strings, numbers, mappings, sequences or dataclasses of them.",
    )


def _bounded(items: list[Any], length: int) -> list[Any]:
    """Shorten the strings of a list if they are too long together, and mark a list whose end was cut off."""
    if length > len(items) and all(isinstance(item, str) for item in items):
        items[-1] = f"… and {length - len(items) + 1} more"
    if len(items) * LONGEST > TOGETHER and sum(len(item) for item in items if isinstance(item, str)) > TOGETHER:
        share = TOGETHER // len(items)
        return [_cut(item, share) if isinstance(item, str) else item for item in items]
    return items


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _float(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
