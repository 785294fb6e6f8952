from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.chain import seal
from dnp_guard.audit.checkpoint import Checkpoint, Signer, keep
from dnp_guard.audit.read.erasure import erase
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.read.retention import Purged, hold, open_log, purge
from dnp_guard.audit.read.second_place import SecondPlace
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify, verify_lines
from dnp_guard.audit.record import build
from dnp_guard.audit.redact import subject_hash
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path

START = datetime(2026, 1, 1, tzinfo=UTC)
CUT = "2026-01-07T00:00:00.000Z"


@pytest.fixture(params=["file", "rotated", "database"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Write an audit log of twelve days, with one request of three records per day."""
    if request.param == "database":
        sink: JsonlSink | SqliteSink = SqliteSink(tmp_path / "log")
    else:
        sink = JsonlSink(tmp_path / "log", rotate_bytes=1500 if request.param == "rotated" else None)
    for day in range(12):
        at = START + timedelta(days=day, hours=1)
        for event in ("request.started", "query", "request.finished"):
            sink.write(build(event, at=at, request=f"r{day}", prompt={"plain": f"secret {day}"}))
    sink.close()
    return tmp_path / "log"


def requests(log: Path) -> list[str]:
    return sorted({record["request"] for record in Log(log) if "request" in record}, key=lambda name: int(name[1:]))


def everything(log: Path) -> bytes:
    return b"".join(path.read_bytes() for path in log.parent.iterdir() if path.is_file())


def test_old_records_go_and_the_rest_verifies(log: Path) -> None:
    done = purge(log, CUT)
    finding = verify(log)
    assert done.records == 18
    assert done.held == 0
    assert finding.problems == ()
    assert finding.purged == 18
    assert requests(log) == ["r6", "r7", "r8", "r9", "r10", "r11"]


def test_nothing_of_what_was_purged_is_left_on_disk(log: Path) -> None:
    purge(log, CUT)
    assert b"secret 5" not in everything(log)
    assert b"secret 6" in everything(log)


def test_the_chain_goes_on_after_a_purge(log: Path) -> None:
    purge(log, CUT)
    open_log(log).write(build("query", request="r99"))
    assert verify(log).problems == ()
    assert requests(log)[-1] == "r99"


def test_a_purge_of_everything_leaves_a_log_that_goes_on(log: Path) -> None:
    purge(log, "2027-01-01T00:00:00.000Z")
    open_log(log).write(build("query", request="r99"))
    assert verify(log).problems == ()
    assert requests(log) == ["r99"]


def test_a_held_request_stays(log: Path) -> None:
    hold(log, "r2", why="complaint 7")
    done = purge(log, CUT)
    assert done.records == 15
    assert done.held == 3
    assert verify(log).problems == ()
    assert requests(log)[:2] == ["r2", "r6"]


def test_a_released_request_goes(log: Path) -> None:
    hold(log, "r2")
    hold(log, "r2", release=True)
    purge(log, CUT)
    assert requests(log)[0] == "r2"  # the hold's own records are new
    assert verify(log).problems == ()
    assert not any(record["event"] == "query" and record["request"] == "r2" for record in Log(log))


def test_a_later_purge_takes_up_the_tombstones_of_an_earlier_one(log: Path) -> None:
    hold(log, "r2")
    for day in (3, 5, 9):
        purge(log, f"2026-01-{day:02d}T00:00:00.000Z")
    finding = verify(log)
    assert finding.problems == ()
    assert finding.purged == 21
    assert requests(log)[0] == "r2"


def test_a_second_purge_has_nothing_to_do(log: Path) -> None:
    purge(log, CUT)
    before = list(read_lines(log))
    again = purge(log, CUT)
    assert again == Purged(0, 0, again.tombstones)
    assert list(read_lines(log)) == before


def test_a_purged_log_agrees_with_an_earlier_checkpoint(log: Path) -> None:
    checkpoint = Checkpoint("o", 36, verify(log).head_hash)
    second = SecondPlace(log.with_name("elsewhere"))
    keep(second.file, checkpoint)
    purge(log, CUT, second)
    assert verify(log, second.notes()).problems == ()


def test_the_log_says_that_it_was_purged_and_by_which_rule(log: Path) -> None:
    purge(log, CUT)
    last = list(Log(log))[-1]
    assert last["event"] == "purged"
    assert last["reason"] == f"purge: older than {CUT}"
    assert len(last["purged"]) > 0


def signed(log: Path) -> SecondPlace:
    """Return the second place in which checkpoints of the log are kept, with a signing key and one checkpoint."""
    second = SecondPlace(log.with_name("elsewhere"), Signer("k", bytes(32)))
    keep(second.file, Checkpoint("o", 36, verify(log).head_hash), second.signer)
    return second


@pytest.mark.parametrize("take", ["purge", "erase"])
def test_a_signed_checkpoint_covers_the_record_of_a_removal(take: str, log: Path) -> None:
    second = signed(log)
    if take == "purge":
        purge(log, CUT, second)
    else:
        open_log(log).write(build("request.started", request="r3", subject=subject_hash("ann", log)))
        erase(log, "ann", second=second)
    lines = [line.data for line in read_lines(log)]
    whole = verify_lines(lines, checkpoints=second.notes()).problems
    cut = verify_lines(lines[:-1], checkpoints=second.notes()).problems  # without the record of the purge
    assert whole == ()
    assert "truncated" in {problem.code for problem in cut}


def test_a_log_that_an_earlier_release_purged_is_unbroken(log: Path) -> None:
    purge(log, CUT)
    *remaining, last = [line.data for line in read_lines(log)]
    record = json.loads(last)
    body = {name: value for name, value in record.items() if name not in {"hash", "seq", "prev"}}
    line, _ = seal({**body, "event": "checkpoint"}, record["seq"], record["prev"])
    assert verify_lines([*remaining, line + b"\n"]).problems == ()


def test_a_log_that_does_not_verify_is_not_purged(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "log")
    for _ in range(3):
        sink.write(build("query", at=START))
    lines = (tmp_path / "log").read_bytes().splitlines(keepends=True)
    (tmp_path / "log").write_bytes(lines[0] + lines[2])
    with pytest.raises(AuditError, match="not purged"):
        purge(tmp_path / "log", CUT)
    assert (tmp_path / "log").read_bytes() == lines[0] + lines[2]


def test_a_tombstone_that_no_purge_has_announced_is_found(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sink = JsonlSink(log)
    for day in range(6):
        sink.write(build("query", at=START + timedelta(days=day), request=f"r{day}"))
    sink.write(build("query"))
    purge(log, "2026-01-03T00:00:00.000Z")
    lines = [line.data for line in read_lines(log)]
    log.write_bytes(b"".join(lines[:-1]))
    assert [problem.code for problem in verify(log).problems] == ["not-announced"]


def test_a_writer_goes_on_through_a_purge(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "log")
    sink.write(build("query", at=START, request="r0"))
    purge(sink.path, CUT)
    sink.write(build("query", request="r1"))
    assert verify(sink.path).problems == ()
    assert requests(sink.path) == ["r1"]


def test_an_unknown_request_is_not_held(log: Path) -> None:
    with pytest.raises(AuditError, match="no such generation"):
        hold(log, "r99")


def test_a_missing_log_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="no such log"):
        open_log(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []
