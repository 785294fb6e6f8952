from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from dnp_guard.audit.events import QueryAnswered, RequestStarted
from dnp_guard.audit.read.verify import verify, verify_lines
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.recorder import Recorder
from dnp_guard.audit.write.sinks import MemorySink
from dnp_guard.audit.write.spool import BACKLOG
from dnp_guard.telemetry import Metrics, Tracing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Flaky(MemorySink):
    """A sink that fails while it is ``broken``."""

    name = "flaky"
    broken = False
    closed = False

    def write(self, event: Mapping[str, Any]) -> None:
        if self.broken:
            raise OSError("no space left on device")
        super().write(event)

    def close(self) -> None:
        self.closed = True
        if self.broken:
            raise OSError("no space left on device")


def recorder(*sinks: MemorySink, **common: object) -> Recorder:
    return Recorder(sinks, Metrics(), Tracing(), common, required=True)


def events(sink: MemorySink) -> list[tuple[str, object]]:
    return [(record["event"], record.get("step", record.get("reason"))) for record in sink.records]


def query(step: int | None = None) -> QueryAnswered:
    return QueryAnswered(request="r1", image=0, step=step, decision="none", latency_ms=1.0)


def degraded(of: Recorder, reason: str) -> float | None:
    return of.metrics.registry.get_sample_value("dnp_guard_degraded_total", {"reason": reason})


def test_every_sink_gets_the_event_with_the_common_fields() -> None:
    sinks = MemorySink(), MemorySink()
    emitted = recorder(*sinks, tenant="t", policy={"name": "p"}).emit(query(1))
    (first,), (second,) = (sink.records for sink in sinks)
    assert emitted
    assert first == second
    assert first["tenant"] == "t"
    assert first["policy"] == {"name": "p"}
    assert first["step"] == 1


def test_without_sinks_nothing_fails() -> None:
    assert recorder().emit(query())


def test_writing_is_timed() -> None:
    of = recorder(MemorySink())
    of.emit(query())
    assert of.metrics.registry.get_sample_value("dnp_guard_overhead_seconds_count", {"stage": "audit"}) == 1


def test_a_failing_sink_is_counted_and_the_others_are_written() -> None:
    flaky, other = Flaky(), MemorySink()
    flaky.broken = True
    of = recorder(flaky, other)
    assert not of.emit(query(1))
    assert degraded(of, "audit_sink") == 1
    assert events(other) == [("query", 1)]


def test_missed_events_are_written_before_the_next_event_with_a_record_of_the_outage() -> None:
    sink = Flaky()
    of = recorder(sink)
    sink.broken = True
    missed = [of.emit(query(step)) for step in (1, 2)]
    sink.broken = False
    recovered = of.emit(query(3))
    assert missed == [False, False]
    assert recovered
    assert events(sink) == [("query", 1), ("degraded", "audit_sink"), ("query", 2), ("query", 3)]


def test_the_record_of_an_outage_belongs_to_the_generation_in_which_it_began() -> None:
    sink = Flaky()
    of = recorder(sink, policy={"name": "p"})
    sink.broken = True
    of.emit(query())
    sink.broken = False
    of.close()
    assert [(record["request"], record["policy"]) for record in sink.records] == [("r1", {"name": "p"})] * 2


def test_the_record_of_an_outage_names_the_policy_of_what_was_missed() -> None:
    sink = Flaky()
    of = recorder(sink, policy={"name": "as the guard was made"})
    sink.broken = True
    of.emit(query(), policy={"name": "reloaded"})
    sink.broken = False
    of.close()
    assert [record["policy"]["name"] for record in sink.records] == ["reloaded", "reloaded"]


def test_the_backlog_is_bounded_and_what_is_dropped_is_counted() -> None:
    sink = Flaky()
    of = recorder(sink)
    sink.broken = True
    for step in range(BACKLOG + 9):
        of.emit(query(step))
    sink.broken = False
    of.close()
    assert len(sink.records) == BACKLOG
    assert events(sink)[-1] == ("query", BACKLOG + 8)
    assert degraded(of, "audit_dropped") == 10


def test_an_event_that_cannot_be_built_is_counted_and_does_not_raise():
    of = recorder(sink := MemorySink())
    event = RequestStarted(request="r", host={}, run={"seed": object()})
    assert not of.emit(event)
    assert degraded(of, "audit_record") == 1
    assert sink.records == []


def test_closing_writes_what_was_missed_and_closes_every_sink() -> None:
    broken, sound = Flaky(), Flaky()
    of = recorder(broken, sound)
    broken.broken = sound.broken = True
    of.emit(query(1))
    sound.broken = False
    of.close()
    assert sound.closed
    assert events(sound) == [("query", 1), ("degraded", "audit_sink")]


def test_threads_write_one_chain() -> None:
    sink = MemorySink()
    of = recorder(sink)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: of.emit(query(step)), range(200)))
    verification = verify_lines(line + b"\n" for line in sink.lines)
    assert verification.ok
    assert verification.records == 200


class Hanging(MemorySink):
    """A sink that does not return until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.go = Event()

    def write(self, event: Mapping[str, Any]) -> None:
        self.go.wait()
        super().write(event)


def test_a_sink_that_hangs_blocks_no_step() -> None:
    sink = Hanging()
    of = Recorder([sink], Metrics(), Tracing(), {})
    start = monotonic()
    emitted = [of.emit(query(step)) for step in range(100)]
    waited = monotonic() - start
    sink.go.set()
    of.close()
    assert not any(emitted)
    assert waited < 10  # a hanging sink does not return before it is released
    assert len(sink.records) == 100


def test_nobody_waits_for_a_sink_that_has_been_found_to_hang() -> None:
    sink = Hanging()
    of = Recorder([sink], Metrics(), Tracing(), {})
    of.emit(query())
    settled = of.settle(0.5)
    start = monotonic()
    again = of.settle(60)
    waited = monotonic() - start
    sink.go.set()
    of.close()
    assert not settled
    assert not again
    assert waited < 30


def test_when_settled_every_sink_holds_everything() -> None:
    sink = MemorySink()
    of = Recorder([sink], Metrics(), Tracing(), {})
    for step in range(300):
        of.emit(query(step))
    assert of.settle(60)
    assert len(sink.records) == 300


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_missed_events_survive_the_process_on_disk(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        broken = Flaky()
        broken.broken = True
        Recorder([broken], Metrics(), Tracing(), {}, spool=tmp_path, required=True).emit(query(1))
        os._exit(0)
    os.waitpid(pid, 0)
    (spooled,) = tmp_path.iterdir()
    mode = stat.S_IMODE(spooled.stat().st_mode)
    sound = Flaky()
    Recorder([sound], Metrics(), Tracing(), {}, spool=tmp_path, required=True).emit(query(2))
    assert mode == 0o600
    assert events(sound) == [("query", 1), ("degraded", "audit_sink"), ("query", 2)]
    assert list(tmp_path.iterdir()) == []


def test_events_missed_by_a_nameless_sink_go_to_no_other_sink(tmp_path: Path) -> None:
    class Nameless(Flaky):
        name = None  # type: ignore[assignment]

    broken, sound = Nameless(), Nameless()
    broken.broken = True
    Recorder([broken], Metrics(), Tracing(), {}, spool=tmp_path, required=True).emit(query(1))
    Recorder([sound], Metrics(), Tracing(), {}, spool=tmp_path, required=True).emit(query(2))
    assert events(sound) == [("query", 2)]
    assert list(tmp_path.iterdir()) == []


def test_events_that_wait_for_another_process_are_left_to_it(tmp_path: Path) -> None:
    broken, sound = Flaky(), Flaky()
    broken.broken = True
    first, second = (
        Recorder([sink], Metrics(), Tracing(), {}, spool=tmp_path, required=True) for sink in (broken, sound)
    )
    first.emit(query(1))
    third = Recorder([sound], Metrics(), Tracing(), {}, spool=tmp_path, required=True)
    third.emit(query(2))
    second.emit(query(3))
    assert events(sound) == [("query", 2), ("query", 3)]


def test_a_spool_that_cannot_be_written_keeps_what_was_missed_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    sink = Flaky()
    sink.broken = True
    of = Recorder([sink], Metrics(), Tracing(), {}, spool=tmp_path / "file" / "spool", required=True)
    of.emit(query(1))
    sink.broken = False
    of.emit(query(2))
    assert events(sink) == [("query", 1), ("degraded", "audit_sink"), ("query", 2)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_recording(tmp_path: Path) -> None:
    of = recorder(JsonlSink(tmp_path / "a.jsonl"))  # type: ignore[arg-type]
    of.emit(query(1))
    pid = os.fork()
    if pid == 0:
        os._exit(0 if of.emit(query(2)) else 1)
    _, status = os.waitpid(pid, 0)
    of.emit(query(3))
    of.close()
    assert os.waitstatus_to_exitcode(status) == 0
    assert verify(tmp_path / "a.jsonl").records == 3
