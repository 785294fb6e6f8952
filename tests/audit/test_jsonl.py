from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.segments import segments
from dnp_guard.audit.write.jsonl import JsonlSink

if TYPE_CHECKING:
    from pathlib import Path


def write(sink: JsonlSink, steps: range) -> None:
    for step in steps:
        sink.write(build("query", step=step))


@pytest.fixture
def rotated(tmp_path: Path) -> Path:
    """Write a log of twelve records in several files."""
    path = tmp_path / "a.jsonl"
    write(JsonlSink(path, rotate_bytes=700), range(12))
    return path


def problems(path: Path) -> list[tuple[str, int, str]]:
    return [(problem.file.rpartition("/")[2], problem.line, problem.code) for problem in verify(path).problems]


def test_a_full_file_is_rotated_and_the_chain_goes_on(rotated: Path) -> None:
    finding = verify(rotated)
    assert finding.problems == ()
    assert finding.records == 12
    assert len(segments(rotated)) > 1


def test_a_rotated_file_is_named_after_its_first_record(rotated: Path) -> None:
    firsts = [next(iter(Log(path)))["seq"] for path in segments(rotated)]
    assert [int(path.name.rpartition(".")[2]) for path in segments(rotated)] == firsts


def test_records_are_read_in_order_across_files(rotated: Path) -> None:
    assert [record["step"] for record in Log(rotated)] == list(range(12))


def test_a_new_sink_goes_on_where_a_rotation_has_left_no_file(rotated: Path) -> None:
    last = next(iter(Log(rotated)))
    rotated.rename(rotated.with_name(f"a.jsonl.{sum(1 for _ in Log(rotated)) - 1:012d}"))
    JsonlSink(rotated).write(build("query", step=12))
    assert verify(rotated).problems == ()
    assert verify(rotated).records == 13
    assert last["step"] == 0


def test_a_log_whose_next_file_is_not_made_yet_is_read(rotated: Path) -> None:
    before = len(list(Log(rotated)))
    (first,) = [record["seq"] for record in list(Log(rotated))[-1:]]
    count = len(rotated.read_bytes().splitlines())
    rotated.rename(rotated.with_name(f"a.jsonl.{first - count + 1:012d}"))
    assert verify(rotated).problems == ()
    assert len(list(Log(rotated))) == before


def test_an_edit_in_a_rotated_file_is_named_with_the_file(rotated: Path) -> None:
    first = segments(rotated)[0]
    first.write_bytes(first.read_bytes().replace(b'"step":1,', b'"step":7,'))
    assert problems(rotated) == [(first.name, 2, "hash-mismatch")]


def test_a_missing_rotated_file_is_found(rotated: Path) -> None:
    _, second, *_ = segments(rotated)
    second.unlink()
    assert [code for _, _, code in problems(rotated)] == ["seq-gap"]


def test_a_torn_line_within_a_rotated_file_is_no_torn_last_line(rotated: Path) -> None:
    first = segments(rotated)[0]
    first.write_bytes(first.read_bytes()[:-5])
    assert problems(rotated)[0][2] == "not-json"
    assert not verify(rotated).torn


def test_an_old_file_is_rotated(tmp_path: Path) -> None:
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    sink = JsonlSink(tmp_path / "a.jsonl", rotate_hours=24, clock=lambda: now[0])
    for hours in (0, 23, 24, 25, 47, 48):
        now[0] = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        sink.write(build("query", at=now[0]))
    assert [path.name for path in segments(sink.path)] == ["a.jsonl.000000000000", "a.jsonl.000000000002"]
    assert verify(sink.path).records == 6


def test_threads_with_sinks_of_their_own_rotate_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: write(JsonlSink(path, rotate_bytes=2000), range(30)), range(6)))
    assert verify(path).problems == ()
    assert verify(path).records == 180


def test_a_sink_notices_what_another_has_written(tmp_path: Path) -> None:
    first, second = JsonlSink(tmp_path / "a.jsonl"), JsonlSink(tmp_path / "a.jsonl")
    for sink in (first, second, second, first):
        sink.write(build("query"))
    assert verify(first.path).ok
    assert first.head == second.head
    assert first.head.seq == 4


def test_a_closed_sink_opens_its_file_again(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl")
    sink.write(build("query"))
    sink.close()
    sink.write(build("query"))
    assert verify(sink.path).records == 2
