"""An audit log can be continued after somebody has changed its file, or while a sink hangs."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from threading import Event

import pytest

from dnp_guard.audit.read.retention import purge
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write import outlet as outlets
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.outlet import Outlet
from dnp_guard.audit.write.spool import Spool
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError

KINDS = {"file": JsonlSink, "database": SqliteSink}


def write(sink, steps):
    for step in steps:
        sink.write(build("query", step=step))


def removed(path):
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def exchanged(path):
    other = path.with_name("other")
    sink = KINDS["database" if path.suffix == ".db" else "file"](other)
    write(sink, range(20))
    sink.close()
    removed(path)
    other.rename(path)


def cut(path):
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM record WHERE seq > 3")
    else:
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:4]))


def emptied(path):
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("DELETE FROM record")
    else:
        path.write_bytes(b"")


def cut_and_grown(path):
    """Empty the log's file, and write more records into it than it had."""
    emptied(path)
    write(KINDS["database" if path.suffix == ".db" else "file"](path), range(100, 130))


@pytest.fixture(params=KINDS)
def sink(request, tmp_path):
    made = KINDS[request.param](tmp_path / ("log.db" if request.param == "database" else "log"))
    write(made, range(10))
    return made


@pytest.mark.parametrize("change", [removed, exchanged, cut, emptied, cut_and_grown])
def test_a_log_that_is_changed_under_its_writer_is_told_of_once_and_goes_on(sink, change):
    change(sink.path)
    with pytest.raises(AuditError, match="removed, cut or replaced"):
        write(sink, [10])
    write(sink, [10, 11])
    assert verify(sink.path).ok


@pytest.mark.parametrize("change", [removed, exchanged, cut, emptied, cut_and_grown])
def test_a_changed_log_is_counted_and_says_so_itself_and_loses_nothing(sink, change):
    counted = []
    outlet = Outlet(sink, Spool(None, "s"), counted.append, lambda _, reason: build("degraded", reason=reason))
    change(sink.path)
    for step in (10, 11):
        outlet.wait(outlet.put(build("query", step=step)), 30)
    outlet.close(30)
    assert counted == ["audit_sink"]
    text = sink.path.read_bytes() + b"".join(file.read_bytes() for file in sink.path.parent.glob("*-wal"))
    assert all(part in text for part in (b'"step":10', b'"step":11', b'"reason":"audit_sink"'))


def test_other_writers_are_not_taken_for_a_change(sink):
    other = type(sink)(sink.path)
    for step in range(20):
        write(other if step % 3 else sink, [step])
    assert verify(sink.path).ok
    assert verify(sink.path).records == 30


def test_a_purge_is_not_taken_for_a_change(sink):
    purge(sink.path, "2100-01-01T00:00:00.000Z")
    write(sink, [10])
    assert verify(sink.path).ok


def test_a_rotation_is_not_taken_for_a_change(tmp_path):
    sink, other = (JsonlSink(tmp_path / "log", rotate_bytes=500) for _ in range(2))
    for step in range(30):
        write(other if step % 4 else sink, [step])
    assert verify(sink.path).ok
    assert verify(sink.path).records == 30


class Hanging:
    """A sink that hangs until it is released."""

    def __init__(self):
        self.go, self.held = Event(), []

    def write(self, record):
        self.go.wait(30)
        self.held.append(record)

    def close(self):
        pass


def test_a_sink_that_hangs_is_counted_once_until_it_takes_something(monkeypatch):
    monkeypatch.setattr(outlets, "HANGING", 0.0)
    counted, sink = [], Hanging()
    outlet = Outlet(sink, Spool(None, "s"), counted.append, lambda _, reason: build("degraded", reason=reason))
    numbers = [outlet.put(build("query", step=step)) for step in range(5)]
    assert counted == ["audit_sink"]
    sink.go.set()
    assert outlet.wait(numbers[-1], 30)
    outlet.close(30)
    assert len(sink.held) == 5


def test_events_that_a_hanging_sink_never_takes_are_counted_as_dropped():
    counted, sink = [], Hanging()
    outlet = Outlet(sink, Spool(None, "s"), counted.append, lambda _, reason: build("degraded", reason=reason))
    for step in range(5):
        outlet.put(build("query", step=step))
    outlet.close(0.01)
    sink.go.set()
    assert counted == ["audit_dropped"] * 5
