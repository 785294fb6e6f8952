"""Checkpoints reveal that somebody removed audit records and put a forged tombstone in their place.

A tombstone is the line that a real purge leaves in place of the records that it removes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dnp_guard.audit.chain import Tombstone, parse
from dnp_guard.audit.checkpoint import Checkpoint, keep, make_key, read_notes
from dnp_guard.audit.events import CheckpointWritten, RecordsPurged
from dnp_guard.audit.read.retention import purge
from dnp_guard.audit.read.second_place import SecondPlace
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run
from dnp_guard.errors import AuditError

START = datetime(2026, 1, 1, tzinfo=UTC)
CUT = "2026-01-07T00:00:00.000Z"


@pytest.fixture
def signer(tmp_path):
    return make_key(tmp_path / "key", "tests")


@pytest.fixture
def log(tmp_path):
    """Write an audit log of twelve days, with three records per day."""
    sink = JsonlSink(tmp_path / "log")
    for day in range(12):
        for event in ("request.started", "query", "request.finished"):
            sink.write(build(event, at=START + timedelta(days=day), request=f"r{day}"))
    sink.close()
    return tmp_path / "log"


@pytest.fixture
def second(tmp_path, log, signer):
    """Return the second place in which the log's checkpoints are kept, with one checkpoint."""
    keep(tmp_path / "elsewhere", at_its_end(log), signer)
    return SecondPlace(tmp_path / "elsewhere", signer)


def at_its_end(log):
    finding = verify(log)
    return Checkpoint("tests", finding.records + finding.purged, finding.head_hash)


def forge(log, first, last):
    """Replace a range of records by a forged tombstone, and append a record that claims a purge of them."""
    lines = log.read_bytes().splitlines(keepends=True)
    ends = [parse(lines[place]) for place in (first, last)]
    line, sealed = Tombstone(first, last, ends[0]["prev"], ends[1]["hash"], "2026-01-12T01:00:00.000Z").line()
    log.write_bytes(b"".join([*lines[:first], line + b"\n", *lines[last + 1 :]]))
    JsonlSink(log).write(RecordsPurged(reason="purge: older", purged=[sealed]).record())


def codes(log, second):
    return [problem.code for problem in verify(log, second.notes()).problems]


def test_a_forged_purge_is_found_against_the_checkpoints(log, second, signer):
    forge(log, 10, 30)
    assert verify(log).ok
    assert run(["audit", "verify", str(log), "--checkpoint", str(second.file), "--key", signer.public]) == 1
    assert codes(log, second) == ["not-vouched"]


def test_a_forged_purge_is_found_after_more_checkpoints(log, second, signer):
    forge(log, 10, 30)
    keep(second.file, at_its_end(log), signer)
    assert codes(log, second) == ["not-vouched"]


def test_a_purge_that_is_kept_at_the_second_place_is_taken(log, second):
    assert purge(log, CUT, second).records == 18
    assert codes(log, second) == []


def test_a_second_purge_stands_for_the_first_too(log, second):
    purge(log, "2026-01-04T00:00:00.000Z", second)
    purge(log, CUT, second)
    assert codes(log, second) == []


def test_a_purge_does_not_cover_a_forged_one(log, second):
    forge(log, 1, 5)
    with pytest.raises(AuditError, match="does not verify"):
        purge(log, CUT, second)


def test_a_purge_by_another_key_is_refused(log, second, tmp_path):
    with pytest.raises(AuditError, match="no valid signature"):
        purge(log, CUT, SecondPlace(second.file, make_key(tmp_path / "other", "tests")))


def test_a_purge_without_the_key_is_refused_before_anything_is_written(log, second):
    before, noted = log.read_bytes(), second.file.read_bytes()
    with pytest.raises(AuditError, match="are signed"):
        purge(log, CUT, SecondPlace(second.file))
    assert log.read_bytes() == before
    assert second.file.read_bytes() == noted


def test_a_purge_that_forgets_the_second_place_is_refused(log, second):
    JsonlSink(log).write(CheckpointWritten(checkpoint={"origin": "tests", "count": 36, "root": "0" * 64}).record())
    with pytest.raises(AuditError, match="the log has checkpoints"):
        purge(log, CUT)


def test_a_purge_from_before_is_taken_once_it_is_vouched_for(log, second, tmp_path):
    purge(log, CUT)
    vouch = ["audit", "checkpoint", str(log), "--to", str(second.file), "--sign", str(tmp_path / "key"), "--purged"]
    assert codes(log, second) == ["not-vouched"]
    assert run(vouch) == 0
    assert codes(log, second) == []


def test_the_command_keeps_a_purge_at_the_second_place(log, second, tmp_path):
    options = ["--checkpoint", str(second.file), "--sign", str(tmp_path / "key"), "--older-than", "1d", "--yes"]
    assert run(["audit", "purge", str(log), *options]) == 0
    assert codes(log, second) == []
    assert [len(note.purged) for note in read_notes(second.file)[-2:]] == [1, 0]
