"""The service reports when it cannot guard, and why."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from starlette.testclient import TestClient

from dnp_guard.audit.write import outlet
from dnp_guard.errors import DnpGuardError
from dnp_guard.guard import Guard
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.server.conftest import HERE, ask, begin
from tests.server.processes import serving
from tests.waiting import wait_until

NOTHING = {"a star": 0.0}


def why(client):
    answer = client.get("/readyz")
    return answer.json().get("detail", "") if answer.status_code == 503 else ""


def test_a_locked_store_is_not_ready(serve, tmp_path):
    client = serve(NOTHING, store=f"sqlite:{tmp_path / 'sessions'}")
    assert why(client) == ""
    other = sqlite3.connect(tmp_path / "sessions", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert why(client) == "the session store does not answer"
    finally:
        other.execute("ROLLBACK")
        other.close()


def test_a_full_store_is_not_ready(serve, tmp_path, monkeypatch):
    opened, connect = [], sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: opened.append(connect(*args, **more)) or opened[-1])
    client = serve(NOTHING, store=f"sqlite:{tmp_path / 'sessions'}")
    (database,) = opened
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    store = client.app.state.service.store
    with suppress(sqlite3.OperationalError):
        while True:
            store.count(os.urandom(500).hex(), 0)
    assert why(client) == "the session store accepts no writes: OperationalError"


class Hanging:
    """A backend that answers only after the test has released it."""

    name = "hanging"

    def __init__(self):
        self.asked, self.let = threading.Semaphore(0), threading.Event()

    def ask(self, images, questions):
        self.asked.release()
        self.let.wait(60)
        return [[0.0] * len(questions) for _ in images]


def test_threads_that_all_hang_are_not_ready():
    backend = Hanging()
    settings = Settings(policy="glyphs", vlm="", threads=1)
    with TestClient(create(settings, backend), base_url=HERE) as client, ThreadPoolExecutor(1) as pool:
        session = begin(client).json()["session"]
        asking = pool.submit(ask, client, session, 2)
        backend.asked.acquire()
        assert why(client) == "every thread is busy, so requests wait"
        backend.let.set()
        assert asking.result(60).is_success
        assert why(client) == ""


class Sink:
    """An audit sink that fails or hangs on demand."""

    def __init__(self):
        self.fails, self.let = False, threading.Event()
        self.let.set()

    def write(self, record):
        self.let.wait(60)
        if self.fails:
            raise OSError(28, "No space left on device")

    def close(self):
        pass


@pytest.fixture
def session(serve, monkeypatch):
    """Return a client of a service, and the audit sink of its guard."""
    sink = Sink()
    monkeypatch.setattr("dnp_guard.server.guards.Guard", lambda *args, **given: Guard(*args, **given | {"audit": sink}))
    return serve(NOTHING), sink


def test_a_log_that_takes_nothing_is_not_ready(session):
    client, sink = session
    assert why(client) == ""
    sink.fails = True
    begin(client)
    assert why(client) == "the audit log accepts no records, so they wait"
    sink.fails = False
    begin(client)
    assert why(client) == ""


def test_a_log_that_hangs_is_not_ready(session, monkeypatch):
    monkeypatch.setattr(outlet, "HANGING", 0.0)
    client, sink = session
    sink.let.clear()
    begin(client)
    assert why(client) == "the audit log accepts no records, so they wait"
    sink.let.set()


def test_a_missing_folder_of_metrics_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "metrics"))
    with pytest.raises(DnpGuardError, match="PROMETHEUS_MULTIPROC_DIR") as raised:
        Guard("glyphs", vlm=Hanging())
    assert raised.value.hint == f"mkdir -p {tmp_path / 'metrics'}"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")
def test_workers_do_not_outlive_their_parent_and_leave_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "looks.json").write_text("[{a star: 0.0}]")
    with serving("--policy", "glyphs", "--vlm", f"scripted:{tmp_path / 'looks.json'}", "--workers", 2) as running:
        running.wait_for(2)
        workers = running.workers
        assert list(tmp_path.glob("dnp-guard-*"))
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    assert list(tmp_path.glob("dnp-guard-*")) == []
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{running.url}/healthz", trust_env=False)
