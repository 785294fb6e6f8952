"""An audit log stays valid when its writing process, its disk or its clock fails."""

from __future__ import annotations

import errno
import fcntl
import os
import random
import resource
import shutil
import signal
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.audit.write.sinks import MemorySink
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError

KILLS = 200
DATABASE_KILLS = 40
NOBODY = 65534
CALLS = [
    (os, "open"),
    (os, "fstat"),
    (os, "stat"),
    (os, "pread"),
    (os, "write"),
    (os, "ftruncate"),
    (os, "fdatasync"),
    (os, "fsync"),
    (os, "rename"),
    (os, "close"),
    (fcntl, "flock"),
]


class Injected(OSError):
    """An I/O error that a test injects."""


@contextmanager
def failing_at(number, *, half=False):
    """Let the I/O call of this number fail inside a ``with`` block; yield a list with the name of the failed call.

    The call fails before it does anything or, with ``half``, after half of a write.
    """
    calls = count(1)
    hit = []

    def wrap(module, name, real):
        def call(*args, **kwargs):
            if next(calls) != number:
                return real(*args, **kwargs)
            hit.append(name)
            if half and name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            raise Injected(errno.EIO, "injected", "")

        return call

    with ExitStack() as stack:
        for module, name in CALLS:
            real = getattr(module, name)
            stack.callback(setattr, module, name, real)
            setattr(module, name, wrap(module, name, real))
        yield hit


def torn_log(path):
    """Write a log of three records whose last line is incomplete."""
    memory = MemorySink()
    for step in range(3):
        memory.write(build("query", step=step))
    path.write_bytes(b"\n".join(memory.lines)[:-20])


def written_with(path, written):
    sink = JsonlSink(path, rotate_bytes=400, sync=True)
    for step in range(100, 106):
        sink.write(build("query", step=step))
        written.append(step)


@pytest.mark.parametrize("half", [False, True])
def test_after_a_failure_at_any_io_call_the_log_verifies_and_the_next_run_appends(tmp_path, half):
    tried = []
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "a.jsonl"
        torn_log(path)
        written = []
        with failing_at(number, half=half) as hit, suppress(AuditError, Injected):
            written_with(path, written)
        if not hit:
            break
        tried += hit
        JsonlSink(path).write(build("query", step=999))
        steps = [record["step"] for record in Log(path)]
        finding = verify(path)
        assert finding.problems == ()
        assert [step for step in [0, 1, *written] if step not in steps] == []
        assert steps[-1] == 999
        shutil.rmtree(folder)
    assert len(tried) > 50
    assert set(tried) >= {"open", "fstat", "stat", "pread", "write", "ftruncate", "fdatasync", "rename", "flock"}


def die_within_a_write(at):
    """Return a replacement for ``os.write`` that kills the process in the middle of one write, and the real function.

    Args:
        at: number of this write, and after how many bytes to kill the process.
    """
    real, writes = os.write, count()

    def write(descriptor, data):
        if next(writes) == at[0]:
            real(descriptor, data[: at[1] % len(data)])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(descriptor, data)

    return write, real


def child(opened, first, pipe, at):
    """Write records until the process is killed, and report every record that the log has acknowledged.

    Args:
        opened: opens the log.
        first: number of the first record.
        pipe: file descriptor for the reports.
        at: the write that kills the process, see :func:`die_within_a_write`; None for none.
    """
    sink = opened()
    write, real = die_within_a_write(at) if at else (os.write, os.write)
    os.write = write
    for step in range(first, first + 5000):
        sink.write(build("query", step=step, reason="x" * (step % 7 * 300)))
        real(pipe, b"%d\n" % step)
    os._exit(0)


def killed(opened, first, chance, *, within=True):
    """Fork a writing process, kill it at a random point, and return the numbers of the acknowledged records.

    Args:
        opened: opens the log.
        first: number of the first record.
        chance: random numbers.
        within: whether the process may also be killed in the middle of a write.
    """
    reading, writing = os.pipe()
    by_itself = within and chance.random() < 0.5
    at = (chance.randrange(40), chance.randrange(5000)) if by_itself else None
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.close(reading)
            child(opened, first, writing, at)
        os._exit(1)
    os.close(writing)
    acknowledged = b""
    stop_after = chance.randrange(150)
    while block := os.read(reading, chance.randrange(1, 64)):
        acknowledged += block
        if not by_itself and len(acknowledged) > stop_after:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return [int(line) for line in acknowledged.split(b"\n")[:-1]]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_no_acknowledged_record_is_lost_to_a_kill_at_any_point(tmp_path, capsys):
    chance = random.Random(20)
    path = tmp_path / "a.jsonl"
    acknowledged, torn = [], 0
    for kill in range(KILLS):
        acknowledged += killed(lambda: JsonlSink(path, rotate_bytes=60_000), kill * 10_000, chance)
        if kill % 20 == 0:
            finding = verify(path)
            assert finding.ok or finding.torn
        torn += path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0
    JsonlSink(path).write(build("query", step=-1))
    finding = verify(path)
    steps = {record["step"] for record in Log(path)}
    lost = set(acknowledged) - steps
    with capsys.disabled():
        print(  # noqa: T201 (the count is what this test is for)
            f"\nkill points tried: {KILLS} ({torn} within a line), records acknowledged: {len(acknowledged)}, "
            f"acknowledged records lost: {len(lost)}"
        )
    assert finding.problems == ()
    assert lost == set()
    assert -1 in steps
    assert torn > 0


@contextmanager
def full_disk(path):
    """Let a file grow by 100 bytes at most, inside a ``with`` block only: the limit applies to the whole process."""
    limits, action = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, action)


def test_a_full_disk_tears_nothing_and_the_same_sink_goes_on_when_there_is_room(tmp_path):
    path = tmp_path / "a.jsonl"
    JsonlSink(path).write(build("query", step=0))
    sink = JsonlSink(path)
    with full_disk(path):
        for step in (1, 2):
            with pytest.raises(AuditError):
                sink.write(build("query", step=step))
    sink.write(build("query", step=3))
    assert verify(path).ok
    assert [record["step"] for record in Log(path)] == [0, 3]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_file_that_became_read_only_is_refused_and_later_goes_on(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / "a.jsonl"
    JsonlSink(path).write(build("query", step=0))
    path.chmod(0o444)
    assert as_nobody(path) == "refused"
    path.chmod(0o600)
    JsonlSink(path).write(build("query", step=1))
    assert verify(path).ok
    assert verify(path).records == 2


def as_nobody(path):
    """Try to write a record as a user without rights, because root may write everything; return the result."""
    for folder in (path.parent, *path.parents[1:4]):
        folder.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        code = 2
        with suppress(BaseException):
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            try:
                JsonlSink(path).write(build("query", step=9))
                code = 0
            except AuditError:
                code = 1
        os._exit(code)
    _, status = os.waitpid(pid, 0)
    return {0: "written", 1: "refused"}.get(os.waitstatus_to_exitcode(status))


def test_a_removed_folder_fails_each_record_until_it_is_back(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    sink = JsonlSink(folder / "a.jsonl")
    sink.write(build("query", step=0))
    shutil.rmtree(folder)
    for step in (1, 2):
        with pytest.raises(AuditError, match="does not exist"):
            sink.write(build("query", step=step))
    folder.mkdir()
    with pytest.raises(AuditError, match="removed, cut or replaced"):
        sink.write(build("query", step=3))
    sink.write(build("query", step=3))
    assert verify(sink.path).ok
    assert [record["step"] for record in Log(sink.path)] == [3]


def test_a_clock_that_goes_backwards_breaks_nothing(tmp_path):
    now = datetime(2026, 1, 2, tzinfo=UTC)
    times = [now, now + timedelta(hours=1), now - timedelta(days=3), now - timedelta(days=2), now + timedelta(hours=5)]
    clock = iter(times)
    sink = JsonlSink(tmp_path / "a.jsonl", rotate_hours=2, clock=lambda: now_is)
    for step, now_is in enumerate(clock):
        sink.write(build("query", at=now_is, step=step))
    assert verify(sink.path).ok
    assert [record["step"] for record in Log(sink.path)] == [0, 1, 2, 3, 4]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_no_acknowledged_record_of_a_database_is_lost_to_a_kill(tmp_path, capsys):
    chance, path, acknowledged = random.Random(21), tmp_path / "a.db", []
    for kill in range(DATABASE_KILLS):
        acknowledged += killed(lambda: SqliteSink(path), kill * 10_000, chance, within=False)
        assert verify(path).ok
    SqliteSink(path).write(build("query", step=-1))
    steps = {record["step"] for record in Log(path)}
    lost = set(acknowledged) - steps
    with capsys.disabled():
        print(  # noqa: T201 (as above)
            f"\nkill points tried: {DATABASE_KILLS} (database), records acknowledged: {len(acknowledged)}, "
            f"acknowledged records lost: {len(lost)}"
        )
    assert verify(path).problems == ()
    assert lost == set()
    assert -1 in steps
