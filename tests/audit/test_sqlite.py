from __future__ import annotations

import os
import sqlite3
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Write a log of five records."""
    sink = SqliteSink(tmp_path / "a.db")
    for step in range(5):
        sink.write(build("query", step=step))
    sink.close()
    return tmp_path / "a.db"


def test_it_verifies_and_reads_like_a_file(database: Path) -> None:
    assert verify(database).ok
    assert [record["step"] for record in Log(database)] == [0, 1, 2, 3, 4]


def test_it_is_in_write_ahead_mode_and_for_its_owner_only(database: Path) -> None:
    (mode,) = sqlite3.connect(database).execute("PRAGMA journal_mode").fetchone()
    assert mode == "wal"
    assert stat.S_IMODE(database.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        ("UPDATE record SET line = replace(line, '\"step\":2', '\"step\":7') WHERE seq = 2", [(3, "hash-mismatch")]),
        ("DELETE FROM record WHERE seq = 1", [(2, "seq-gap")]),
        ("UPDATE record SET line = 7 WHERE seq = 0", [(1, "not-json")]),
    ],
)
def test_a_change_is_named_at_its_row(database: Path, change: str, problems: list[tuple[int, str]]) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(change)
    assert [(problem.line, problem.code) for problem in verify(database).problems] == problems


def test_sinks_share_one_chain(database: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda step: SqliteSink(database).write(build("query", step=step)), range(20)))
    assert verify(database).problems == ()
    assert verify(database).records == 25


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_shares_its_parents_sink(tmp_path: Path) -> None:
    sink = SqliteSink(tmp_path / "a.db")
    sink.write(build("query", step=0))
    pid = os.fork()
    if pid == 0:
        sink.write(build("query", step=1))
        os._exit(0)
    os.waitpid(pid, 0)
    sink.write(build("query", step=2))
    assert verify(sink.path).ok
    assert [record["step"] for record in Log(sink.path)] == [0, 1, 2]


def test_a_database_of_another_program_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE settings (theme)")
    before = (tmp_path / "other.db").read_bytes()
    with pytest.raises(AuditError, match="another kind of database"):
        SqliteSink(tmp_path / "other.db")
    assert (tmp_path / "other.db").read_bytes() == before


@pytest.mark.parametrize("content", [b"hello", b"hello" * 1000])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "notes").write_bytes(content)
    with pytest.raises(AuditError, match="not a database"):
        SqliteSink(tmp_path / "notes")


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="No such file"):
        SqliteSink(tmp_path / "missing" / "a.db")
