"""The hash chain: each record holds the hash of the one before, and its own.

``hash`` is the SHA-256 of the record's RFC 8785 bytes without ``hash``; ``prev`` is the previous record's ``hash``, 64
zeros at first; ``seq`` counts from 0. A chain without a key finds accidents and partial edits at their line; rewriting
to the end or cutting the tail is found only against a checkpoint kept elsewhere.
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
"""Bytes of the longest line a log may have, its newline left out; what bounds the memory of reading one."""

_SAFE_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends: what its next record carries.

    Attributes:
        seq: of the next record.
        prev: hash of the last one.
    """

    seq: int = 0
    prev: str = ZERO


def seal(body: Mapping[str, Any], seq: int, prev: str) -> tuple[bytes, str]:
    """Give a record its place in a log.

    Args:
        body: what :func:`dnp_guard.audit.record.build` makes.
        seq: the record's place, from 0.
        prev: hash of the record before.

    Returns:
        The line, without its newline, and the record's hash.

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
    # The hash stands between the fields that sort before it and those after, so that each is written once.
    first = {key: value for key, value in body.items() if key < "hash"}
    before = canonical(first)[:-1] + (b"," if first else b"")
    after = canonical({**{key: value for key, value in body.items() if key > "hash"}, "seq": seq, "prev": prev})[1:]
    sealed = hashlib.sha256(before + after).hexdigest()
    line = b'%b"hash":"%b",%b' % (before, sealed.encode(), after)
    if len(line) > LONGEST_LINE:
        raise Unwritable(f"an audit record of {len(line)} bytes", hint=f"At most {LONGEST_LINE} bytes fit into a line.")
    return line, sealed


def digest(record: Mapping[str, Any]) -> str:
    """The hash that belongs to a record, whatever its own field ``hash`` says.

    Raises:
        AuditError: the record has no canonical form.
    """
    return hashlib.sha256(canonical({key: value for key, value in record.items() if key != "hash"})).hexdigest()


def parse(line: bytes) -> dict[str, Any] | None:
    """The JSON object of a line, or None where it holds no object."""
    try:
        # Not the bytes themselves, whose encoding json would guess.
        value = json.loads(line.decode("utf-8"), parse_int=_number)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What stands in a log in the place of records that were purged.

    Attributes:
        first: ``seq`` of the first of them.
        last: ``seq`` of the last.
        prev: hash of the record before.
        head: hash of the last, which the record after carries as its ``prev``.
        time: when they were purged.
    """

    first: int
    last: int
    prev: str
    head: str
    time: str

    def line(self) -> tuple[bytes, str]:
        """Its line, without its newline, and its hash."""
        place = {"first": self.first, "last": self.last, "prev": self.prev, "head": self.head}
        record = {"v": FORMAT, "time": self.time, "tombstone": place}
        sealed = digest(record)
        return canonical({**record, "hash": sealed}), sealed


def tombstone(record: Mapping[str, Any]) -> Tombstone | None:
    """The tombstone that a line's object is, or None where it is another."""
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
    """Whether a line's object is an audit record of this format."""
    match record:
        case {"v": int(version), "seq": int(), "prev": str(), "hash": str(), "event": str(), "time": str()}:
            return version == FORMAT
    return False


def head_after(record: Mapping[str, Any]) -> Head | None:
    """What follows a record or a tombstone, or None where it is neither."""
    if is_record(record):
        return Head(record["seq"] + 1, record["hash"])
    buried = tombstone(record)
    return Head(buried.last + 1, buried.head) if buried is not None else None


def _number(digits: str) -> int | float:
    # RFC 8785 writes a float below 10²¹ without a point: beyond the safe integers, digits alone are a float.
    value = float(digits)
    return int(digits) if abs(value) <= _SAFE_INTEGER else value
