"""Under ten times its normal load, the service still reports its health, and answers every request in the end."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.server.conftest import ask, begin
from tests.server.processes import serving
from tests.vlm import fault_server as faults
from tests.waiting import wait_until

THREADS = 4
LOAD = 10 * THREADS
ASKED = 20


@pytest.fixture
def model():
    """Run a model server; it answers at once until a test sets its ``fault``."""
    with faults.running() as server:
        yield server


def test_health_is_told_beside_ten_times_the_load_and_every_request_is_answered(model, service_table):
    options = ("--policy", "glyphs", "--vlm", f"systemone:m@{model.url}", "--threads", THREADS)
    with serving(*options) as running, httpx2.Client(base_url=running.url, trust_env=False, timeout=120) as host:
        sessions = [begin(host).json()["session"] for _ in range(LOAD)]
        let = threading.Event()

        def held(server, connection, body):
            let.wait(60)
            faults.replied(json.dumps(faults.answer_of(body)).encode())(server, connection, body)

        model.fault, before = held, len(model.requests)
        with ThreadPoolExecutor(LOAD) as pool:
            asked = [pool.submit(ask, host, session, 2) for session in sessions]
            wait_until(lambda: len(model.requests) >= before + THREADS)  # the load has reached the model
            waits = []
            for _ in range(ASKED):
                began = time.monotonic()
                assert host.get("/healthz").is_success
                waits.append(time.monotonic() - began)
            unanswered = sum(not answer.done() for answer in asked)
            let.set()
            codes = {answer.result().status_code for answer in asked}
    assert unanswered >= LOAD - THREADS  # health was reported while all threads waited and the rest queued
    assert codes == {200}
    what = f"{LOAD} queries at {THREADS} threads"
    service_table.append((what, "--threads", "health told; all answered", f"{max(waits):.3f} (health)", "-"))
