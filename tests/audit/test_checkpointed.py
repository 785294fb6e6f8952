from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.checkpoint import Signer, read_notes
from dnp_guard.audit.events import GuardDegraded
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write.checkpointed import CheckpointedSink
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.plugin import dnp_guard_audit_sink
from dnp_guard.audit.write.recorder import Recorder
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError
from dnp_guard.telemetry import Metrics, Tracing

if TYPE_CHECKING:
    from pathlib import Path

NEVER = 1e6


@pytest.mark.parametrize("kind", [JsonlSink, SqliteSink])
def test_a_closed_log_agrees_with_the_checkpoint_kept_elsewhere(
    tmp_path: Path, kind: type[JsonlSink | SqliteSink]
) -> None:
    signer = Signer("k", bytes(32))
    sink = CheckpointedSink(kind(tmp_path / "log"), tmp_path / "elsewhere", signer, every=NEVER)
    for _ in range(3):
        sink.write(build("query"))
    sink.close()
    (checkpoint,) = read_notes(tmp_path / "elsewhere", signer.public)
    assert checkpoint.count == 3
    assert verify(tmp_path / "log", [checkpoint]).problems == ()
    assert list(Log(tmp_path / "log"))[-1]["checkpoint"] == {
        "origin": checkpoint.origin,
        "count": 3,
        "root": checkpoint.root,
    }


def test_a_log_without_new_records_gets_no_new_checkpoint(tmp_path: Path) -> None:
    sink = CheckpointedSink(JsonlSink(tmp_path / "log"), tmp_path / "elsewhere", every=NEVER)
    sink.write(build("query"))
    sink.close()
    sink.close()
    assert len(read_notes(tmp_path / "elsewhere")) == 1


def test_a_checkpoint_follows_a_record_by_itself(tmp_path: Path) -> None:
    sink = CheckpointedSink(JsonlSink(tmp_path / "log"), tmp_path / "elsewhere", every=0.001)
    written = Event()
    sink.observe = lambda _: written.set()
    sink.write(build("query"))
    assert written.wait(60)
    assert read_notes(tmp_path / "elsewhere")[0].count == 1


def test_a_checkpoint_that_cannot_be_written_is_counted_and_stops_nothing(tmp_path: Path) -> None:
    sink = CheckpointedSink(JsonlSink(tmp_path / "log"), tmp_path / "missing" / "elsewhere", every=NEVER)
    of = Recorder([sink], Metrics(), Tracing(), {}, required=True)
    emitted = of.emit(GuardDegraded(reason="x"))
    of.close()
    degraded = of.metrics.registry.get_sample_value("dnp_guard_degraded_total", {"reason": "audit_checkpoint"})
    assert emitted
    assert degraded == 1
    assert verify(tmp_path / "log").records == 1


def test_the_time_of_the_latest_checkpoint_is_a_metric(tmp_path: Path) -> None:
    of = Recorder(
        [CheckpointedSink(JsonlSink(tmp_path / "log"), tmp_path / "elsewhere", every=NEVER)], Metrics(), Tracing(), {}
    )
    of.emit(GuardDegraded(reason="x"))
    of.close()
    assert (of.metrics.registry.get_sample_value("dnp_guard_checkpoint_timestamp_seconds") or 0) > 1e9


def test_a_spec_says_where_the_checkpoints_go(tmp_path: Path) -> None:
    sink = dnp_guard_audit_sink(f"jsonl:{tmp_path}/log?checkpoints={tmp_path}/elsewhere&checkpoint_origin=me")
    assert sink is not None
    sink.write(build("query"))
    sink.close()
    assert [note.origin for note in read_notes(tmp_path / "elsewhere")] == ["me"]


def test_a_spec_with_a_key_and_no_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="names no file for checkpoints"):
        dnp_guard_audit_sink(f"jsonl:{tmp_path}/log?checkpoint_key={tmp_path}/key")
