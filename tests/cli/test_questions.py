"""A single command answers each of the questions that people ask about an audit log.

One question is tested in ``tests/lab/test_regenerate.py``: whether a generation gives the same image again.
"""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from dnp_guard import Guard
from dnp_guard.audit import verify
from dnp_guard.audit.read.show import Log
from dnp_guard.cli import run
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star
from tests.sampler import run as generate

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of an audit log and its key: images of three people, and one image in shadow mode."""
    path = tmp_path_factory.mktemp("questions") / "log"
    of = policy(categories=[star(still_present="block"), bolt()])
    surely, nearly = {"star": 0.95}, {"star": 0.55}
    for name, script in (("ann", surely), ("bob", [nearly, {}]), ("carol", {})):
        with Guard(of, vlm=ScriptedBackend(script), audit=path) as guard, guard.on_behalf_of(name):
            generate(guard, 1)
    with Guard(policy(mode="shadow", name="trial"), vlm=ScriptedBackend(surely), audit=path) as guard:
        generate(guard, 1)
    return path.read_bytes() + b"\0" + path.with_name("log.key").read_bytes()


@pytest.fixture
def log(written: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "log"
    lines, _, key = written.rpartition(b"\0")
    path.write_bytes(lines)
    path.with_name("log.key").write_bytes(key)
    path.with_name("log.key").chmod(0o600)
    return path


def asked(capsys: pytest.CaptureFixture[str], *command: str) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*command, "--json"]) == 0
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def test_what_was_blocked_and_why(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = asked(capsys, "audit", "show", str(log), "--images", "--decision", "blocked")["images"]
    assert image["why"].startswith("star (a star) 0.95 of 0.50")


def test_what_fires_most(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = asked(capsys, "audit", "report", str(log))["seen"]
    assert list(seen) == ["star"]
    assert sum(seen["star"].values()) == 3


def test_what_may_be_a_false_alarm(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = asked(capsys, "audit", "candidates", str(log))["images"]
    assert image["decision"] == "steered"


def test_who_changed_what_when(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = asked(capsys, "audit", "changes", str(log))["changes"]
    assert [change["policy"].split()[0] for change in changes] == ["test", "trial"]
    for change in changes:
        assert change["time"]
        assert change["digest"]


def test_whether_it_is_unaltered(log: Path) -> None:
    whole = run(["audit", "verify", str(log)])
    log.write_bytes(log.read_bytes().replace(b"blocked", b"steered"))
    assert whole == 0
    assert run(["audit", "verify", str(log)]) == 1


def test_what_a_regulator_gets(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    run(["audit", "export", str(log), "--format", "dsa"])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["decision_visibility"] == '["DECISION_VISIBILITY_CONTENT_DISABLED"]'
    assert "star" in row["incompatible_content_explanation"]


def test_one_person_is_erased(log: Path) -> None:
    run(["audit", "erase", str(log), "--subject", "ann", "--yes"])
    decisions = [record["decision"] for record in Log(log) if record["event"] == "request.finished"]
    assert "blocked" not in decisions
    assert len(decisions) == 3
    assert verify(log).ok


def test_one_generation_is_held(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (image,) = asked(capsys, "audit", "show", str(log), "--images", "--decision", "blocked")["images"]
    run(["audit", "hold", str(log), image["request"][:8], "--why", "complaint 7"])
    run(["audit", "purge", str(log), "--older-than", "PT0S", "--yes"])
    assert {record["request"] for record in Log(log) if record["event"] == "request.started"} == {image["request"]}


def test_what_enforcing_would_have_done(log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = asked(capsys, "audit", "report", str(log), "--policy", "trial")["seen"]
    assert seen == {"star": {"would be blocked": 1}}
