"""Verify the hash chain of an audit log line by line, and name the lines that were changed.

The chain has no key: verifying it reveals accidents and partial edits, with their line. Whether a log was rewritten up
to its end, or its tail cut off, is found only with a checkpoint that is stored elsewhere. Only one line is in memory at
a time.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from dnp_guard.audit.chain import LONGEST_LINE, ZERO, digest, head_after, is_record, parse, tombstone
from dnp_guard.audit.events import CheckpointWritten, RecordsPurged
from dnp_guard.audit.read.lines import Line, read_lines
from dnp_guard.canonical import canonical
from dnp_guard.errors import AuditError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dnp_guard.audit.checkpoint import Checkpoint

MOST_PROBLEMS: Final = 100
"""Number of problems after which the rest of the log is not read."""

_ANNOUNCE: Final = frozenset({RecordsPurged.name, CheckpointWritten.name})
"""Events that name tombstones; ``checkpoint`` did so in earlier releases."""

_TEXTS: Final = {
    "torn": (
        "the last line ends before its newline, as after a crash",
        "The next record written moves it to <file>.torn-<seq>; 'audit verify --repair FILE' copies the whole lines.",
    ),
    "not-json": ("the line is not a JSON object", "It was edited, joined to its neighbour or split."),
    "not-a-record": ("the line is not an audit record of format 1", "It was edited, or it comes from elsewhere."),
    "not-canonical": ("the bytes are not the record's RFC 8785 form", "It was edited or written by another program."),
    "hash-mismatch": ("the record does not have the hash it carries", "The record was edited."),
    "seq-gap": ("seq is {found}, not {expected}", "Records were removed, inserted or reordered just before or here."),
    "prev-mismatch": (
        "prev is not the hash of the line before",
        "The line before was rewritten with a new hash, or records were swapped.",
    ),
    "not-announced": (
        "records were purged here, but no later record of the log names their tombstone",
        "They were removed by another program than 'audit purge'.",
    ),
    "not-vouched": (
        "records were purged here, but no checkpoint stored elsewhere confirms it",
        "Somebody replaced them, or purged without --checkpoint; confirm your own with 'audit checkpoint --purged'.",
    ),
    "checkpoint-mismatch": (
        "a checkpoint after {expected} records has another hash than the record here",
        "The log was rewritten here or before.",
    ),
    "truncated": ("the log ends after {found} records; a checkpoint has {expected}", "Records were cut from its end."),
}


@dataclass(frozen=True, slots=True)
class Verification:
    """The result of verifying a log.

    Attributes:
        ok: whether no problem was found.
        records: number of lines that are records with the correct hash.
        problems: problems in the order of their lines; at most :data:`MOST_PROBLEMS`.
        head_hash: hash of the last record before the first problem; 64 zeros if there is none. Compare it, and the
            number of records, with a checkpoint.
        purged: number of records replaced by tombstones.
        tombstones: hashes of the tombstones.
    """

    ok: bool
    records: int
    problems: tuple[Problem, ...]
    head_hash: str
    purged: int = 0
    tombstones: tuple[str, ...] = ()

    @property
    def torn(self) -> bool:
        """Whether the only problem is an incomplete last line, as after a crash."""
        return [problem.code for problem in self.problems] == ["torn"]


def verify(path: str | os.PathLike[str], checkpoints: Iterable[Checkpoint] = ()) -> Verification:
    """Verify a log, including its rotated files, even while it is being written.

    Args:
        path: the log, in a file or a SQLite database.
        checkpoints: checkpoints to compare the log with.

    Raises:
        AuditError: a file cannot be read.
    """
    check = _check(checkpoints)
    for line in read_lines(path):
        check.add(line)
        if check.full:
            break
    return check.done(os.fspath(path))


def verify_lines(lines: Iterable[bytes], file: str = "", checkpoints: Iterable[Checkpoint] = ()) -> Verification:
    """Verify the lines of a log that were read already.

    Args:
        lines: lines with their newlines, in the order of the log.
        file: name of the file, for the list of problems.
        checkpoints: checkpoints to compare the log with.
    """
    check = _check(checkpoints)
    for number, line in enumerate(lines, start=1):
        check.add(Line(file, number, line))
        if check.full:
            break
    return check.done(file)


def _check(checkpoints: Iterable[Checkpoint]) -> _Check:
    notes = list(checkpoints)
    vouched = frozenset(tombstone for note in notes for tombstone in note.purged) if notes else None
    return _Check({note.count: note.root for note in notes}, vouched)


@dataclass(frozen=True, slots=True)
class _Expected:
    """The ``seq`` and the possible ``prev`` that the next line should have; None after an unreadable line."""

    seq: int | None = 0
    prev: frozenset[str] | None = frozenset({ZERO})


_NOWHERE: Final = Line("", 0, b"")


@dataclass(slots=True)
class _Check:
    """The state of a verification between two lines.

    Attributes:
        roots: hash of the last record by number of records, from the checkpoints.
        vouched: hashes of the tombstones that the checkpoints confirm; None without checkpoints.
        expected: expected values of the next line.
        records: number of records with the correct hash.
        purged: number of records replaced by tombstones.
        head: hash of the last record before the first problem.
        problems: problems found so far.
        graves: line of every tombstone, by hash.
        announced: hashes of the tombstones that records of the log name.
        last: the latest line.
    """

    roots: Mapping[int, str]
    vouched: frozenset[str] | None = None
    expected: _Expected = field(default_factory=_Expected)
    records: int = 0
    purged: int = 0
    head: str = ZERO
    problems: list[Problem] = field(default_factory=list)
    graves: dict[str, Line] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    last: Line = _NOWHERE

    @property
    def full(self) -> bool:
        return len(self.problems) >= MOST_PROBLEMS

    def add(self, line: Line) -> None:
        if self.problems and self.problems[-1].code == "torn":
            before = self.problems.pop()  # a line without its newline is torn only at the end of the log
            self._problem("not-json", Line(before.file, before.line, b""))
            self.expected = _Expected(None if self.expected.seq is None else self.expected.seq + 1, None)
        record = (parse(line.data[:-1]) if line.data.endswith(b"\n") else None) or {}
        sealed = _digest(record)
        code = _unreadable(line.data, record) or _changed(line.data, record, sealed, self.expected)
        if code:
            self._problem(code, line, _seq(record))
        elif sealed:
            self._sound(line, record, sealed)
        self.records += code in {"", "seq-gap", "prev-mismatch"} and is_record(record)
        self.expected = _following(code, record, sealed, self.expected)
        self.last = line

    def done(self, file: str) -> Verification:
        for hash_, line in self.graves.items():
            if hash_ not in self.announced:
                self._problem("not-announced", line)
            elif self.vouched is not None and hash_ not in self.vouched:
                self._problem("not-vouched", line)
        end = self.expected.seq
        if not self.full and end is not None and (most := max(self.roots, default=0)) > end:
            self._problem("truncated", self.last._replace(file=self.last.file or file), end, most)
        problems = tuple(self.problems[:MOST_PROBLEMS])
        return Verification(not problems, self.records, problems, self.head, self.purged, tuple(self.graves))

    def _sound(self, line: Line, record: Mapping[str, Any], sealed: str) -> None:
        after = head_after(record)
        if after is None:
            return
        if not self.problems:
            self.head = after.prev
        if self.roots.get(after.seq, after.prev) != after.prev:
            self._problem("checkpoint-mismatch", line, None, after.seq)
        buried = tombstone(record)
        if buried is not None:
            self.graves[sealed] = line._replace(data=b"")
            self.purged += buried.last - buried.first + 1
        elif record["event"] in _ANNOUNCE and isinstance(hashes := record.get("purged"), list):
            self.announced.update(map(str, hashes))

    def _problem(self, code: str, line: Line, found: object = None, expected: object = None) -> None:
        values = {"found": found, "expected": self.expected.seq if expected is None else expected}
        message, hint = (text.format(**values) for text in _TEXTS[code])
        self.problems.append(Problem(line.file, line.number, 0, code, message, hint))


def _digest(record: Mapping[str, Any]) -> str | None:
    try:
        return digest(record)
    except AuditError:
        return None


def _seq(record: Mapping[str, Any]) -> object:
    buried = tombstone(record)
    return record.get("seq") if buried is None else buried.first


def _prev(record: Mapping[str, Any]) -> str:
    buried = tombstone(record)
    return str(record.get("prev")) if buried is None else buried.prev


def _unreadable(line: bytes, record: Mapping[str, Any]) -> str:
    """Return the problem code of a line that is neither record nor tombstone; "" for a readable line."""
    if not line.endswith(b"\n") and len(line) <= LONGEST_LINE:
        return "torn"
    if not record:
        return "not-json" if parse(line[:-1]) is None else "not-a-record"
    return "" if head_after(record) else "not-a-record"


def _changed(line: bytes, record: Mapping[str, Any], sealed: str | None, expected: _Expected) -> str:
    """Return the problem code of a record that was changed or moved; "" for an intact one."""
    if sealed is None or canonical(record) != line[:-1]:
        return "not-canonical"
    if record["hash"] != sealed:
        return "hash-mismatch"
    if expected.seq is not None and _seq(record) != expected.seq:
        return "seq-gap"
    if expected.prev is not None and _prev(record) not in expected.prev:
        return "prev-mismatch"
    return ""


def _following(code: str, record: Mapping[str, Any], sealed: str | None, expected: _Expected) -> _Expected:
    """Return the expected values of the next line, chosen so that every change is reported once."""
    after = None if expected.seq is None else expected.seq + 1
    place = head_after(record)
    if code == "torn":
        return _Expected(expected.seq, None)
    if code in {"not-json", "not-a-record"} or place is None:
        return _Expected(after, None)
    # After an edit, accept either hash in the next line: the one written here, or the one that fits.
    hashes = frozenset({place.prev, *({sealed} if sealed and is_record(record) else ())})
    return _Expected(after if code in {"not-canonical", "hash-mismatch"} else place.seq, hashes)
