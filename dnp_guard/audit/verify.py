"""Checks a log line by line, and names the lines at which something was changed.

A chain without a key finds accidents and partial edits at their line; rewriting to the end or cutting the tail is found
only against a checkpoint kept elsewhere. One line is held in memory at a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.canonical import canonical
from dnp_guard.audit.chain import LONGEST_LINE, ZERO, digest, head_after, parse
from dnp_guard.audit.lines import read_lines
from dnp_guard.errors import AuditError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MOST_PROBLEMS: Final = 100
"""After so many problems the rest of a log is not read."""

_TEXTS: Final = {
    "torn": (
        "the last line ends before its newline, as after a crash",
        "The next record written moves it to <file>.torn-<seq> and the log goes on.",
    ),
    "not-json": ("the line is not a JSON object", "It was edited, joined to its neighbour or split."),
    "not-a-record": ("the line is not an audit record of format 1", "It was edited, or it comes from elsewhere."),
    "not-canonical": ("the bytes are not the record's RFC 8785 form", "It was edited or written by another program."),
    "hash-mismatch": ("the record does not have the hash it carries", "The record was edited."),
    "seq-gap": ("seq is {found}, not {expected}", "Records were removed, inserted or reordered just before or here."),
    "prev-mismatch": (
        "prev is not the hash of the line before",
        "The line before was rewritten with a new hash, or records were exchanged.",
    ),
}


@dataclass(frozen=True, slots=True)
class Verification:
    """What checking a log has shown.

    Attributes:
        ok: nothing is wrong.
        records: lines that are records with a right hash.
        problems: what is wrong, by line; at most :data:`MOST_PROBLEMS`.
        head_hash: hash of the last record before the first problem; 64 zeros where there is none. Compare it, with
            ``records``, to a checkpoint.
    """

    ok: bool
    records: int
    problems: tuple[Problem, ...]
    head_hash: str


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the next line should carry; a None is not known, after a line that says nothing."""

    seq: int | None = 0
    prev: frozenset[str] | None = frozenset({ZERO})


def verify(path: str | os.PathLike[str]) -> Verification:
    """Check a log file, also while it is being written.

    Args:
        path: the log.

    Raises:
        AuditError: the file cannot be read.
    """
    return verify_lines(read_lines(path), os.fspath(path))


def verify_lines(lines: Iterable[bytes], file: str = "") -> Verification:
    """Check a log's lines, each with its newline.

    Args:
        lines: in the order of the log.
        file: its name in the problems.
    """
    expected, records, head, problems = _Expected(), 0, ZERO, list[Problem]()
    for number, line in enumerate(lines, start=1):
        record = parse(line[:-1]) if line.endswith(b"\n") else None
        sealed = _digest(record or {})
        code = _unreadable(line, record) or _changed(line, record or {}, sealed, expected)
        if code:
            found = (record or {}).get("seq")
            message, hint = (text.format(found=found, expected=expected.seq) for text in _TEXTS[code])
            problems.append(Problem(file, number, 0, code, message, hint))
        elif sealed and not problems:
            head = sealed
        records += code in {"", "seq-gap", "prev-mismatch"}
        expected = _following(code, record or {}, sealed, expected)
        if len(problems) == MOST_PROBLEMS:
            break
    return Verification(not problems, records, tuple(problems), head)


def _digest(record: Mapping[str, Any]) -> str | None:
    try:
        return digest(record)
    except AuditError:
        return None


def _unreadable(line: bytes, record: Mapping[str, Any] | None) -> str:
    """The code of a line that is no record; "" for a record."""
    if not line.endswith(b"\n") and len(line) <= LONGEST_LINE:
        return "torn"
    if record is None:
        return "not-json"
    return "" if head_after(record) else "not-a-record"


def _changed(line: bytes, record: Mapping[str, Any], sealed: str | None, expected: _Expected) -> str:
    """The code of a record that is not what was written, or not there; "" for one that is."""
    if sealed is None or canonical(record) != line[:-1]:
        return "not-canonical"
    if record["hash"] != sealed:
        return "hash-mismatch"
    if expected.seq is not None and record["seq"] != expected.seq:
        return "seq-gap"
    if expected.prev is not None and record["prev"] not in expected.prev:
        return "prev-mismatch"
    return ""


def _following(code: str, record: Mapping[str, Any], sealed: str | None, expected: _Expected) -> _Expected:
    """What should follow a line, so that one change is named once and the next one too."""
    after = None if expected.seq is None else expected.seq + 1
    if code in {"torn", "not-json", "not-a-record"}:
        return _Expected(after, None)
    # After an edit the next line tells which is the older: the hash that was written here, or the one that fits.
    hashes = frozenset({record["hash"], sealed or record["hash"]})
    return _Expected(after if code in {"not-canonical", "hash-mismatch"} else record["seq"] + 1, hashes)
