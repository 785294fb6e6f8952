"""The hash chain: every record contains the hash of the previous record and its own.

``hash`` is the SHA-256 of the record's RFC 8785 bytes without ``hash``. ``prev`` is the previous record's ``hash``, or
64 zeros for the first. ``seq`` starts at 0. A chain without a key reveals accidents and partial edits at their line.
Rewriting to the end, or cutting the tail, is found only with a checkpoint stored elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.record import FORMAT
from dnp_guard.canonical import canonical
from dnp_guard.errors import AuditError, Unwritable

if TYPE_CHECKING:
    from collections.abc import Mapping

ZERO: Final = "0" * 64
"""The ``prev`` of a log's first record."""

LONGEST_LINE: Final = 1 << 20
"""Most bytes of a line, without its newline; bounds the memory for reading a log."""

_SAFE_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log, which its next record continues.

    Attributes:
        seq: ``seq`` of the next record.
        prev: hash of the last record.
    """

    seq: int = 0
    prev: str = ZERO


def seal(body: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """Seal a record into its place in a log.

    Args:
        body: a record made by :func:`dnp_guard.audit.record.build`.
        seq: position in the log, from 0.
        prev: hash of the previous record.

    Returns:
        The line without its newline, and the hash of the record.

    Raises:
        Unwritable: the body has no canonical form, or the line would be too long.
    """
    try:
        return _sealed(body, seq, prev)
    except Unwritable:
        raise
    except AuditError as error:
        raise Unwritable(error.message, hint=error.hint) from error


def _sealed(body: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    # The hash stands between the fields that sort before and after it, so that every field is serialised once.
    first = {key: value for key, value in body.items() if key < "hash"}
    before = canonical(first)[:-1] + (b"," if first else b"")
    after = canonical({**{key: value for key, value in body.items() if key > "hash"}, "seq": seq, "prev": prev})[1:]
    sealed = hashlib.sha256(before + after).hexdigest()
    line = b'%b"hash":"%b",%b' % (before, sealed.encode(), after)
    if len(line) > LONGEST_LINE:
        raise Unwritable(f"an audit record of {len(line)} bytes", hint=f"A line has at most {LONGEST_LINE} bytes.")
    return line, sealed


def digest(record: Mapping[str, Any]) -> str:
    """Compute the hash of a record, ignoring its own field ``hash``.

    Raises:
        AuditError: the record has no canonical form.
    """
    return hashlib.sha256(canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """Parse the JSON object of a line; None if it is not an object."""
    try:
        # Decode first: from bytes, json would guess the encoding.
        value = json.loads(line.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The replacement of purged records in a log.

    Attributes:
        first: ``seq`` of the first purged record.
        last: ``seq`` of the last purged record.
        prev: hash of the record before the first.
        head: hash of the last purged record, which the following record has as ``prev``.
        time: when the records were purged.
    """

    first: int
    last: int
    prev: str
    head: str
    time: str

    def line(self) -> tuple[bytes, str]:
        """Return the line of the tombstone, without its newline, and its hash."""
        place = {"first": self.first, "last": self.last, "prev": self.prev, "head": self.head}
        record = {"v": FORMAT, "time": self.time, "tombstone": place}
        sealed = digest(record)
        return canonical({**record, "hash": sealed}), sealed


def tombstone(record: Mapping[str, Any]) -> Tombstone | None:
    """Read a line's object as a tombstone; None if it is something else."""
    match record:
        case {
            "v": int(version),
            "time": str(time),
            "hash": str(),
            "tombstone": {"first": int(first), "last": int(last), "prev": str(prev), "head": str(head)},
        }:
            return Tombstone(first, last, prev, head, time) if version == FORMAT and first <= last else None
    return None


def is_record(record: Mapping[str, Any]) -> bool:
    """Return whether a line's object is an audit record of this format."""
    match record:
        case {"v": int(version), "seq": int(), "prev": str(), "hash": str(), "event": str(), "time": str()}:
            return version == FORMAT
    return False


def head_after(record: Mapping[str, Any]) -> Head | None:
    """Return the end of the log after a record or a tombstone; None if it is neither."""
    if is_record(record):
        return Head(record["seq"] + 1, record["hash"])
    buried = tombstone(record)
    return Head(buried.last + 1, buried.head) if buried is not None else None


def _number(digits: str) -> int | float:
    # RFC 8785 writes a float below 10²¹ without a point, so digits beyond the safe integers are a float.
    value = float(digits)
    return int(digits) if abs(value) <= _SAFE_INTEGER else value
