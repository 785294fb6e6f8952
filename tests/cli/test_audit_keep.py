from __future__ import annotations

import io
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from dnp_guard.audit import previews
from dnp_guard.audit.read.show import Log
from dnp_guard.audit.record import build
from dnp_guard.audit.redact import subject_hash
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write a log of two old generations of one person, and a new one of another."""
    path = tmp_path / "log"
    sink = JsonlSink(path)
    old = datetime(2020, 1, 1, tzinfo=UTC)
    for request, at, who in (("r1", old, "ann"), ("r2", old, "ann"), ("r3", None, "bob")):
        sink.write(build("request.started", at=at, request=request, subject=subject_hash(who, path)))
    return path


def requests(log: Path) -> list[str]:
    return [str(record["request"]) for record in Log(log) if record["event"] == "request.started"]


def test_a_purge_keeps_what_is_held(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = run(["audit", "hold", str(log), "r1", "--why", "a complaint"])
    purged = run(["audit", "purge", str(log), "--older-than", "90d", "--yes"])
    assert held == 0
    assert purged == 0
    assert run(["audit", "verify", str(log)]) == 0
    assert re.search("1 records older than .*; 1 older ones are held", capsys.readouterr().out)


def test_a_hold_says_what_it_did(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "hold", str(log), "r1"])
    run(["audit", "hold", str(log), "r1", "--release"])
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("r1 is held:")
    assert second == "r1 is no longer held."


def test_a_purge_never_removes_what_the_policy_retains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sink = JsonlSink(tmp_path / "log")
    sink.write(build("query", at=datetime.now(UTC) - timedelta(days=30), request="r1"))
    run(["audit", "purge", str(tmp_path / "log"), "--older-than", "1d", "--policy", "default"])
    assert ": 0 records older than" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "code", "left"), [("", 2, ["r1", "r2", "r3"]), ("n\n", 2, ["r1", "r2", "r3"]), ("y\n", 0, ["r3"])]
)
def test_a_purge_asks_before_it_removes(
    answer: str, code: int, left: list[str], log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert run(["audit", "purge", str(log), "--older-than", "90d"]) == code
    assert requests(log) == left


def test_a_dry_run_removes_nothing(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["audit", "purge", str(log), "--dry-run"])
    assert code == 0
    assert "would be removed" in capsys.readouterr().out
    assert requests(log) == ["r1", "r2", "r3"]


def test_a_purge_without_a_period_keeps_ninety_days(log: Path) -> None:
    JsonlSink(log).write(build("request.started", at=datetime.now(UTC) - timedelta(days=89), request="r4"))
    run(["audit", "purge", str(log), "--yes"])
    assert requests(log) == ["r3", "r4"]


@pytest.mark.parametrize(("period", "code"), [("1m", 2), ("P1M", 0), ("PT36H", 0), ("P90D", 0), ("P", 2)])
def test_a_period_that_could_be_months_or_minutes_is_refused(
    period: str, code: int, log: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "purge", str(log), "--older-than", period, "--dry-run"]) == code
    assert ("P1M for months" in capsys.readouterr().err) == (period == "1m")


def test_kept_pictures_have_a_retention_of_their_own(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for request in ("1" * 32, "2" * 32):
        preview = previews.keep(previews.folder(log), request, 0, 1, Image.new("RGB", (8, 8)))
    os.utime(previews.folder(log) / preview["file"], (0, 0))
    purge = ["audit", "purge", str(log), "--pictures-older-than", "7d"]
    assert run([*purge, "--dry-run"]) == 0
    assert run(purge) == 0
    assert capsys.readouterr().out.count("1 pictures") == 2
    assert [path.name[0] for path in previews.folder(log).iterdir()] == ["1"]
    assert requests(log) == ["r1", "r2", "r3"]


def test_an_erasure_removes_one_person_and_the_rest_verifies(log: Path) -> None:
    code = run(["audit", "erase", str(log), "--subject", "ann", "--yes", "--why", "request 12"])
    assert code == 0
    assert requests(log) == ["r3"]
    assert run(["audit", "verify", str(log)]) == 0


def test_an_erasure_is_recorded_without_the_persons_name(log: Path) -> None:
    run(["audit", "erase", str(log), "--subject", "ann", "--yes", "--by", "dpo"])
    (erasure,) = [record for record in Log(log) if record["event"] == "erased"]
    assert erasure["subject"] == subject_hash("ann", log)
    assert erasure["records"] == 2
    assert erasure["by"] == "dpo"
    assert b"ann" not in log.read_bytes()


def test_a_hold_outranks_an_erasure_which_waits(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["audit", "hold", str(log), "r2"])
    run(["audit", "erase", str(log), "--subject", "ann", "--yes"])
    (erasure,) = [record for record in Log(log) if record["event"] == "erased"]
    assert requests(log) == ["r2", "r3"]
    assert erasure["waiting"] == ["r2"]
    capsys.readouterr()
    run(["audit", "hold", str(log), "r2", "--release"])
    command = capsys.readouterr().out.splitlines()[1].partition("dnp-guard ")[2].split()
    assert run([*command, "--yes"]) == 0
    assert requests(log) == ["r3"]


def test_an_erasure_of_nobody_is_refused(log: Path) -> None:
    assert run(["audit", "erase", str(log), "--subject", "carol", "--yes"]) == 2


def test_an_erasure_asks_before_it_removes(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert run(["audit", "erase", str(log), "--subject", "ann"]) == 2
    assert requests(log) == ["r1", "r2", "r3"]
