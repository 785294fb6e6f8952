from __future__ import annotations

import io
import multiprocessing
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.chain import LONGEST_LINE, parse, seal
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.read.verify import verify, verify_lines
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sinks import MemorySink, Sink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.audit.write.streams import StreamSink
from dnp_guard.errors import AuditError
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Opened = tuple[Sink, Callable[[], list[bytes]]]

needs_permissions = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


@pytest.fixture(params=["memory", "jsonl", "sqlite", "stream"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Open a sink of every kind, and return it with a function that reads the lines that it has written."""
    if request.param == "memory":
        memory = MemorySink()
        return memory, lambda: list(memory.lines)
    if request.param == "sqlite":
        return SqliteSink(tmp_path / "a.db"), lambda: [line.data[:-1] for line in read_lines(tmp_path / "a.db")]
    if request.param == "stream":
        stream = io.BytesIO()
        return StreamSink(stream), lambda: stream.getvalue().splitlines()
    return JsonlSink(tmp_path / "a.jsonl"), lambda: (tmp_path / "a.jsonl").read_bytes().splitlines()


def test_a_sink_seals_what_it_is_given_in_order(opened: Opened) -> None:
    sink, lines = opened
    first, second = build("query", step=1), build("query", step=2)
    sink.write(first)
    sink.write(second)
    line, sealed = seal(first, 0, "0" * 64)
    assert lines() == [line, seal(second, 1, sealed)[0]]


def test_a_sink_keeps_one_chain_for_all_threads(opened: Opened) -> None:
    sink, lines = opened
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: sink.write(build("query", step=step)), range(200)))
    written = lines()
    steps = {(parse(line) or {})["step"] for line in written}
    assert verify_lines(line + b"\n" for line in written).ok
    assert steps == set(range(200))


def test_a_sink_keeps_nothing_of_an_event_it_refuses(opened: Opened) -> None:
    sink, lines = opened
    sink.write(build("query", step=1))
    before = lines()
    with pytest.raises(AuditError):
        sink.write({**build("query"), "reason": "x" * LONGEST_LINE})
    assert lines() == before


def test_a_sink_may_be_closed_twice(opened: Opened) -> None:
    sink, lines = opened
    sink.write(build("query"))
    sink.close()
    sink.close()
    assert isinstance(sink, Sink)
    assert len(lines()) == 1


def test_a_new_log_is_empty_and_for_its_owner_only(tmp_path: Path) -> None:
    JsonlSink(tmp_path / "a.jsonl")
    status = (tmp_path / "a.jsonl").stat()
    assert status.st_size == 0
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_the_chain_of_an_existing_log_goes_on(log: Callable[..., Path]) -> None:
    path = log()
    JsonlSink(path).write(build("query"))
    assert verify(path).ok
    assert verify(path).records == 6


def test_a_last_line_longer_than_a_block_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for _ in range(3):
        JsonlSink(path).write({**build("query"), "findings": ["x" * 100_000]})
    assert verify(path).ok
    assert verify(path).records == 3


@pytest.mark.parametrize("length", [1, 2, 100, -1])
def test_a_torn_last_line_is_set_aside_and_the_log_goes_on(
    log: Callable[..., Path], sealed_lines: list[bytes], length: int
) -> None:
    path = log([*sealed_lines[:4], sealed_lines[4][:length]])
    JsonlSink(path).write(build("query"))
    aside = path.with_name("audit.jsonl.torn-4")
    assert verify(path).ok
    assert verify(path).records == 5
    assert aside.read_bytes() == sealed_lines[4][:length]


@pytest.mark.parametrize("length", [1, 2, 100, -1])
def test_a_torn_only_line_is_set_aside_and_the_log_begins_anew(
    log: Callable[..., Path], sealed_lines: list[bytes], length: int
) -> None:
    path = log([sealed_lines[0][:length]])
    JsonlSink(path).write(build("query"))
    aside = path.with_name("audit.jsonl.torn-0")
    assert verify(path).ok
    assert verify(path).records == 1
    assert aside.read_bytes() == sealed_lines[0][:length]


def test_a_tail_of_zeros_as_after_a_power_cut_is_set_aside(log: Callable[..., Path], sealed_lines: list[bytes]) -> None:
    path = log([*sealed_lines, bytes(20_000)])
    JsonlSink(path).write(build("query"))
    assert verify(path).ok
    assert path.with_name("audit.jsonl.torn-5").stat().st_size == 20_000


@pytest.mark.parametrize(
    "content",
    [b"hello", b"hello\n", b'{"theme": "dark"}', b'{"theme": "dark"}\n', b"\n", b"\x89PNG\r\n\x1a\n", b"x" * 6_000_000],
)
def test_a_file_that_is_no_audit_log_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(AuditError, match="left untouched"):
        JsonlSink(path)
    assert path.read_bytes() == content


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"the folder .*missing does not exist"):
        JsonlSink(tmp_path / "missing" / "a.jsonl")


def test_a_folder_that_takes_no_files_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "missing" / "a.jsonl")
    with pytest.raises(AuditError, match="cannot write the audit log: No such file or directory"):
        JsonlSink(tmp_path / "a.jsonl")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"it is a folder\nName a file in the folder"):
        JsonlSink(tmp_path)


def test_what_is_not_a_regular_file_is_refused() -> None:
    with pytest.raises(AuditError, match="not a regular file"):
        JsonlSink("/dev/null")


@needs_permissions
def test_a_log_that_may_not_be_written_is_refused(log: Callable[..., Path]) -> None:
    path = log()
    path.chmod(0o400)
    with pytest.raises(AuditError, match="Permission denied"):
        JsonlSink(path)


@needs_permissions
def test_a_folder_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(AuditError, match="Permission denied"):
        JsonlSink(tmp_path / "closed" / "a.jsonl")


def test_a_log_that_was_moved_away_is_told_of_once_and_followed_by_a_new_one(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl")
    sink.write(build("query"))
    (tmp_path / "a.jsonl").rename(tmp_path / "old.jsonl")
    with pytest.raises(AuditError, match="removed, cut or replaced"):
        sink.write(build("query"))
    sink.write(build("query"))
    assert [verify(tmp_path / name).records for name in ("old.jsonl", "a.jsonl")] == [1, 1]


WRITE_INTO_100_BYTES = """
import os, resource, signal, sys
from dnp_guard.audit import JsonlSink
from dnp_guard.audit.record import build

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = os.path.getsize(sys.argv[1]) + 100
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
JsonlSink(sys.argv[1]).write(build("query"))
"""
"""A program for a process of its own, because the limit would also hold for the tests' own log."""


def test_a_record_that_only_fits_in_part_leaves_nothing_in_the_log(
    log: Callable[..., Path], sealed_lines: list[bytes]
) -> None:
    path = log()
    done = subprocess.run(
        [sys.executable, "-c", WRITE_INTO_100_BYTES, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "only a part of a record" in done.stderr
    assert path.read_bytes() == b"".join(sealed_lines)


WRITE = """
import sys
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink

sink, most, padding = JsonlSink(sys.argv[1]), int(sys.argv[2]), "x" * int(sys.argv[3])
for step in range(most):
    sink.write({**build("query", step=step), "findings": [padding]})
"""


def writer(path: Path, most: int, padding: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(most), str(padding)])


def test_processes_share_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    codes = [process.wait() for process in [writer(path, 100) for _ in range(3)]]
    verification = verify(path)
    assert codes == [0, 0, 0]
    assert verification.ok
    assert verification.records == 300


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_shares_its_parents_sink(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "a.jsonl")
    child = multiprocessing.get_context("fork").Process(target=_write_many, args=(sink,))
    child.start()
    _write_many(sink)
    child.join()
    verification = verify(sink.path)
    assert child.exitcode == 0
    assert verification.ok
    assert verification.records == 200


def _write_many(sink: Sink) -> None:
    for step in range(100):
        sink.write(build("query", step=step))


def test_a_log_goes_on_after_its_writer_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    process = writer(path, 1_000_000, 50_000)
    wait_until(lambda: path.exists() and path.stat().st_size > 500_000)
    process.kill()
    process.wait()
    JsonlSink(path).write(build("query"))
    assert verify(path).ok
