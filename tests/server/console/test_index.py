from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from dnp_guard.audit.read.erasure import erase
from dnp_guard.audit.record import build
from dnp_guard.audit.redact import subject_hash
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.server.console.index import Index
from dnp_guard.server.console.queries import QueueFilter, queue


def finish(sink, request, **more):
    sink.write(build("request.started", request=request, **more))
    sink.write(build("request.finished", request=request, image=0, decision="blocked"))


def shown(index):
    index.update()
    with index.reading() as database:
        return [entry.row.request for entry in queue(database, QueueFilter())]


@pytest.mark.parametrize("kind", [JsonlSink, SqliteSink])
def test_the_index_takes_in_new_records(kind, tmp_path):
    sink, index = kind(tmp_path / "log"), Index(tmp_path / "log")
    finish(sink, "r1")
    first = shown(index)
    finish(sink, "r2")
    assert first == ["r1"]
    assert shown(index) == ["r2", "r1"]
    sink.close()


def test_a_rotated_log_is_read_once(tmp_path):
    sink, index = JsonlSink(tmp_path / "log", rotate_bytes=600), Index(tmp_path / "log")
    for number in range(6):
        finish(sink, f"r{number}")
        shown(index)
    assert sorted(shown(index)) == [f"r{number}" for number in range(6)]


@pytest.mark.parametrize("kind", [JsonlSink, SqliteSink])
def test_the_index_drops_erased_records(kind, tmp_path):
    log = tmp_path / "log"
    sink, index = kind(log), Index(log)
    finish(sink, "r1", subject=subject_hash("ann", log))
    finish(sink, "r2")
    shown(index)
    erase(log, "ann")
    assert shown(index) == ["r2"]
    assert b"r1" not in index.path.read_bytes()
    sink.close()


def test_two_processes_go_on_with_one_index(tmp_path):
    sink, one, other = JsonlSink(tmp_path / "log"), Index(tmp_path / "log"), Index(tmp_path / "log")
    finding = {"category": "nudity", "term": "t", "probability": 0.7, "threshold": 0.5}
    sink.write(build("request.started", request="r1"))
    sink.write(build("query", request="r1", image=0, step=1, findings=[finding]))
    one.update()
    sink.write(build("request.finished", request="r1", image=0, decision="steered"))
    other.update()
    with one.reading() as database:
        (entry,) = queue(database, QueueFilter())
    assert list(entry.row.sights) == ["nudity"]


def test_one_in_a_hundred_of_the_images_that_nothing_was_done_about_is_sampled(tmp_path):
    sink, index = JsonlSink(tmp_path / "log"), Index(tmp_path / "log")
    for number in range(250):
        sink.write(build("request.finished", request=f"r{number}", image=0, decision="clean"))
    index.update()
    with index.reading() as database:
        assert len(queue(database, QueueFilter(show="sample"))) == 2


def test_an_index_of_an_earlier_version_is_made_anew(tmp_path):
    sink, index = JsonlSink(tmp_path / "log"), Index(tmp_path / "log")
    finish(sink, "r1")
    shown(index)
    with closing(sqlite3.connect(index.path)) as database, database:
        database.execute("UPDATE state SET version = 1")
        database.execute("DROP TABLE day")
    assert shown(Index(tmp_path / "log")) == ["r1"]


def test_a_line_that_is_not_whole_yet_is_taken_in_later(tmp_path):
    sink, index = JsonlSink(tmp_path / "log"), Index(tmp_path / "log")
    finish(sink, "r1")
    whole = (tmp_path / "log").read_bytes()
    (tmp_path / "log").write_bytes(whole[:-20])
    assert shown(index) == []
    with (tmp_path / "log").open("ab") as file:
        file.write(whole[-20:])
    assert shown(index) == ["r1"]
