"""The hash chain of an audit log: every record contains its own hash and that of the previous record.

``hash`` is the SHA-256 of the record's RFC 8785 bytes without ``hash``. ``prev`` is the previous record's ``hash``, or
64 zeros for the first. ``seq`` starts at 0. The chain has no key: verifying it reveals accidents and partial edits,
with their line. Whether a log was rewritten up to its end, or its tail cut off, is found only with a checkpoint that is
stored elsewhere.
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
"""Most bytes of a line without its newline, which limits the memory for reading a log."""

_SAFE_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a log: the values with which its next record continues the chain.

    Attributes:
        seq: ``seq`` of the next record.
        prev: hash of the last record, which is ``prev`` of the next.
    """

    seq: int = 0
    prev: str = ZERO


def seal(body: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """Seal a record: add its position, the previous record's hash and its own, and write it as one line.

    Args:
        body: a record made by :func:`dnp_guard.audit.record.build`.
        seq: position in the log, from 0.
        prev: hash of the previous record.

    Returns:
        The line without its newline, and the hash of the record.

    Raises:
        Unwritable: the record cannot be written as RFC 8785 JSON, or the line would be too long.
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
        raise Unwritable(f"an audit record has {len(line)} bytes", hint=f"A line has at most {LONGEST_LINE} bytes.")
    return line, sealed


def digest(record: Mapping[str, Any]) -> str:
    """Compute the hash of a record, ignoring its own field ``hash``.

    Raises:
        AuditError: the record cannot be written as RFC 8785 JSON.
    """
    return hashlib.sha256(canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """Parse a line as a JSON object; None if it is anything else."""
    try:
        # Decode first: from bytes, json would guess the encoding.
        value = json.loads(line.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The line that replaces a run of purged records in a log, so that the rest of the chain can be verified.

    Attributes:
        first: ``seq`` of the first purged record.
        last: ``seq`` of the last purged record.
        prev: hash of the record before the first purged one.
        head: hash of the last purged record, which is ``prev`` of the record after it.
        time: time at which the records were purged.
    """

    first: int
    last: int
    prev: str
    head: str
    time: str

    def line(self) -> tuple[bytes, str]:
        """Return the tombstone as a line of the log, without its newline, and the hash of the tombstone."""
        place = {"first": self.first, "last": self.last, "prev": self.prev, "head": self.head}
        record = {"v": FORMAT, "time": self.time, "tombstone": place}
        sealed = digest(record)
        return canonical({**record, "hash": sealed}), sealed


def tombstone(record: Mapping[str, Any]) -> Tombstone | None:
    """Convert the parsed JSON of a line to a tombstone, which replaces purged records; None if it is not one."""
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
    """Return whether the parsed JSON object of a line is an audit record of this format."""
    match record:
        case {"v": int(version), "seq": int(), "prev": str(), "hash": str(), "event": str(), "time": str()}:
            return version == FORMAT
    return False


def head_after(record: Mapping[str, Any]) -> Head | None:
    """Return the end of a log whose last line is this record or tombstone; None if it is neither."""
    if is_record(record):
        return Head(record["seq"] + 1, record["hash"])
    buried = tombstone(record)
    return Head(buried.last + 1, buried.head) if buried is not None else None


def _number(digits: str) -> int | float:
    # RFC 8785 writes a float below 10²¹ without a point, so digits beyond the safe integers are a float.
    value = float(digits)
    return int(digits) if abs(value) <= _SAFE_INTEGER else value
