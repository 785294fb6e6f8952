"""The guard works or gives a clear error if folders, users or files are missing on a machine."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dnp_guard import Guard
from dnp_guard.audit.write.jsonl import JsonlSink
from dnp_guard.cli import run
from dnp_guard.errors import AuditError, VlmUnavailable
from dnp_guard.policy.force.signing import new_key, sign
from dnp_guard.policy.force.store import as_store
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from dnp_guard.types import Outcome
from dnp_guard.vlm.plugin import look_up
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import at, policy
from tests.sampler import run as generate
from tests.server.conftest import HERE, begin


@pytest.fixture
def nobody(monkeypatch):
    """Run as a user without a home folder and without an entry in the system's list of users."""

    def none(*_):
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "DNP_GUARD_SPOOL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", none)


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("spool", [False, True])
def test_a_user_without_a_home_is_guarded(tmp_path, monkeypatch, spool):
    if spool:
        monkeypatch.setenv("DNP_GUARD_SPOOL", str(tmp_path / "spool"))
    with Guard(policy(), vlm=ScriptedBackend([{}]), audit=tmp_path / "log") as guard:
        assert generate(guard) == (Outcome.CLEAN,)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named_with_its_own_remedy(tmp_path, monkeypatch, code):
    def no_locks(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(AuditError, match="no file locks") as raised:
        JsonlSink(tmp_path / "log")
    assert "lockd" in raised.value.hint


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_unknown_policy_is_refused_before_a_model_is_loaded(capsys, workers):
    options = ["--policy", "nothing-like-it", "--vlm", "transformers:/nowhere", "--workers", workers, "--port", "0"]
    assert run(["serve", *options]) == 2
    message = capsys.readouterr().err
    assert "nothing-like-it" in message
    assert "/nowhere" not in message


@pytest.mark.parametrize("audit", [False, True])
def test_a_service_without_a_record_says_so(tmp_path, audit):
    (tmp_path / "looks.json").write_text("[{}]")
    options = ["--policy", "glyphs", "--vlm", f"scripted:{tmp_path / 'looks.json'}"]
    with (tmp_path / "said").open("w") as stderr:
        started = subprocess.Popen(
            [sys.executable, "-m", "dnp_guard", "serve", "--port", "0", *options]
            + (["--audit", str(tmp_path / "log")] if audit else []),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        assert started.stdout.readline().startswith(b"serving glyphs")
        started.terminate()
        started.wait()
        started.stdout.close()
    assert ("there is no audit log" in (tmp_path / "said").read_text()) is not audit


@pytest.mark.parametrize(
    "spec", ["transformers:/nowhere", "transformers:owner/absent", "glyph", "openai:m", "scripted:/nowhere", "glyphs:x"]
)
def test_a_backend_that_is_not_there_is_not_installed(tmp_path, spec, capsys):
    (tmp_path / "extensions").mkdir()
    assert run(["install", "a1111", str(tmp_path), "--start-vlm", spec]) == 2
    assert list((tmp_path / "extensions").iterdir()) == []
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["glyphs", "openai:m@http://127.0.0.1:8000/v1"])
def test_a_backend_that_is_there_or_may_be_is_taken(spec):
    look_up(spec)


def test_a_spec_with_no_model_is_told_its_form():
    with pytest.raises(VlmUnavailable, match="names no model"):
        look_up("transformers:")


def test_doctor_is_short_unless_all_is_asked_for(capsys):
    run(["doctor"])
    short = capsys.readouterr().out
    run(["doctor", "--all"])
    assert len(short.splitlines()) < 15 < len(capsys.readouterr().out.splitlines())
    assert "--all lists them" in short


def test_a_policy_whose_signature_ends_is_not_ready_and_guards_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DNP_GUARD_SERIALS", str(tmp_path / "serials.json"))
    path = tmp_path / "p.yaml"
    path.write_text(
        "format: 1\nname: p\nmode: shadow\nqueries: {steps: [0.5]}\n"
        "categories: [{id: star, title: Star, definition: A star., negative: [star]}]\n"
    )
    private, public = new_key()
    ends = datetime.now(UTC) + timedelta(days=1)
    sign(path, as_store(path), private, serial=1, expires=ends)
    settings = Settings(policy=str(path), vlm="", require_signature=public)
    with TestClient(create(settings, ScriptedBackend([{}])), base_url=HERE) as client:
        assert client.get("/readyz").status_code == 200
        with at(ends):
            answer = client.get("/readyz")
            opened = begin(client)
    assert answer.status_code == 503
    assert "no valid policy" in answer.json()["detail"]
    assert opened.status_code == 503
