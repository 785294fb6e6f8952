"""Other workers continue the sessions of a worker that is killed."""

from __future__ import annotations

import json
import sys
import threading

import httpx2
import pytest
from PIL import Image

from dnp_guard.audit.read.verify import verify
from dnp_guard.hosts.protocol import Host
from dnp_guard.hosts.remote import Service
from tests.server.conftest import SERVED
from tests.server.processes import serving

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the workers in /proc")

HOST = Host(name="tests")
RED = Image.new("RGB", (16, 16), "red")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    file = tmp_path_factory.mktemp("script") / "looks.json"
    file.write_text(json.dumps([{"a star": 0.9}]))
    return file


def records(log):
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_session_goes_on_when_its_workers_are_killed_and_no_answered_query_is_lost(script, tmp_path):
    log = tmp_path / "audit.jsonl"
    options = ("--policy", SERVED, "--vlm", f"scripted:{script}", "--audit", log, "--workers", 2)
    with serving(*options) as running, Service(running.url) as client:
        running.wait_for(2)
        session = client.open(["a lake"], images=1, steps=25, host=HOST)
        first = running.workers
        answered = []
        for step in session.opened.due:
            steer = session.query(step, [RED])
            answered.append(step)
            assert steer[0].negative == "star"
            if first:
                running.kill(first.pop())
                running.wait_for(2)
        (verdict,) = session.final([RED])
    assert verdict.decision == "blocked"
    written = [record for record in records(log) if record.get("request") == session.opened.session]
    assert {record["step"] for record in written if record["event"] == "query" and "step" in record} == set(answered)
    assert sum(record["event"] == "request.started" for record in written) == 1
    assert sum(record["event"] == "negative.injected" for record in written) == 1
    assert sum(record["event"] == "request.finished" for record in written) == 1
    assert verify(log).ok


def test_many_sessions_outlive_a_worker(script, tmp_path):
    log = tmp_path / "audit.jsonl"
    done, failed = [], []

    def generate(url):
        try:
            with Service(url) as client, client.open(images=1, steps=25, host=HOST) as session:
                for step in session.opened.due:
                    session.query(step, [RED])
                    halfway.wait() if step == session.opened.due[3] else None
                done.append((session.opened.session, session.final([RED])[0].decision))
        except Exception as error:  # noqa: BLE001 (shown by the assertion)
            failed.append(error)

    options = ("--policy", "glyphs", "--vlm", f"scripted:{script}", "--audit", log, "--workers", 2)
    halfway = threading.Barrier(9)
    with serving(*options) as running:
        running.wait_for(2)
        threads = [threading.Thread(target=generate, args=(running.url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        halfway.wait()
        running.kill(running.workers[0])
        for thread in threads:
            thread.join()
        metrics = httpx2.get(f"{running.url}/metrics", trust_env=False).text
    assert failed == []
    assert [decision for _, decision in done] == ["blocked"] * 8
    finished = {record["request"] for record in records(log) if record["event"] == "request.finished"}
    assert finished == {session for session, _ in done}
    assert verify(log).ok
    assert f'dnp_guard_generations_total{{decision="blocked",policy="glyphs"}} {len(done)}.0' in metrics
