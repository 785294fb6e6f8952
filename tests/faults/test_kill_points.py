"""A worker may be killed at any call of the session store; another worker then continues the session."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import count

import pytest
from starlette.testclient import TestClient

from dnp_guard.audit.read.show import Log
from dnp_guard.audit.read.verify import verify
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from dnp_guard.vlm.base import Backend, BackendInfo
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.faults.databases import failing_databases
from tests.server.conftest import HERE, ask, begin, finish

STEPS = (2, 22)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")


def kill_this_process():
    os.kill(os.getpid(), signal.SIGKILL)


def service(folder, backend=None, clock=time.time):
    settings = Settings(policy="glyphs", vlm="", store=f"sqlite:{folder}/sessions", audit=(f"{folder}/log",), keep=True)
    app = create(settings, backend or ScriptedBackend([{"a star": 0.9}]), clock)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


def acknowledged(work):
    """Run ``work`` in a forked process; return the messages that it sent, and whether it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            work(lambda message: os.write(writing, json.dumps(message).encode() + b"\n"))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        messages = [json.loads(line) for line in lines]
    _, status = os.waitpid(pid, 0)
    return messages, os.WIFSIGNALED(status)


def dying(folder, at, *, after):
    def work(say):
        with failing_databases() as opened, service(folder) as client:
            opened[0].arm(at, kill_this_process, after=after)
            session = begin(client).json()["session"]
            say(session)
            for step in STEPS:
                say(ask(client, session, step).status_code)
            say(finish(client, session).json()["images"][0]["action"])

    return work


def going_on(folder, session):
    def work(say):
        with service(folder) as client:
            session_ = session or begin(client).json()["session"]
            for step in STEPS:
                ask(client, session_, step)
            say(finish(client, session_).json())

    return work


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_killed_at_any_call_of_the_store_lets_nothing_through_and_loses_no_record(
    tmp_path, after, service_table
):
    began, stuck = time.monotonic(), 0
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        messages, killed = acknowledged(dying(folder, number, after=after))
        if not killed:
            break
        session = messages[0] if messages else None
        ((verdict,), _) = acknowledged(going_on(folder, session))
        records = list(Log(folder / "log"))
        asked = {record["step"] for record in records if record["event"] == "query" and "step" in record}
        assert verify(folder / "log").ok
        assert len(asked) >= messages.count(200)
        if verdict.get("type") == "urn:dnp-guard:problem:busy":  # it died between the record of its end and its end
            stuck += 1
        else:
            assert verdict["images"][0]["action"] == "block"
    sys.stdout.write(f"\nkill points tried: {number - 1} (store, {'after' if after else 'before'}), stuck: {stuck}\n")
    assert number > 10
    assert stuck <= 2
    what = f"kill -9 at each of {number - 1} calls of the store, {'after' if after else 'before'} it"
    happened = f"another worker goes on and blocks; {stuck} withheld until they expire"
    service_table.append((what, "the request", happened, f"{time.monotonic() - began:.1f}", "-"))


class DiesAtTheFinal(Backend):
    """A backend that kills its own process during the final look."""

    info = BackendInfo("dies", "1", local=True)

    def ask(self, images, questions):
        raise NotImplementedError

    def put(self, query):
        if query.final:
            kill_this_process()
        return [[0.0] * len(query.questions) for _ in query.images]


@pytest.fixture
def left_ending(tmp_path):
    """Yield a client of a new worker, and the id of a session whose worker was killed during its final look."""

    def work(say):
        with service(tmp_path, DiesAtTheFinal()) as client:
            opened = begin(client).json()
            session = opened["session"]
            say(session)
            for step in opened["due"]:
                ask(client, session, step)
            finish(client, session)

    (session,), killed = acknowledged(work)
    assert killed
    with service(tmp_path) as client:
        yield client, session


def test_a_session_whose_worker_is_killed_in_its_final_query_is_withheld(left_ending):
    client, session = left_ending
    answer = finish(client, session)
    assert answer.status_code == 409
    assert answer.headers["retry-after"] == "1"


def test_a_session_whose_worker_is_killed_in_its_final_query_is_abandoned_once_it_expires(left_ending, tmp_path):
    client, session = left_ending
    expired = time.time() + client.app.state.settings.limits.idle_s + 1
    with service(tmp_path, clock=lambda: expired) as later:
        later.app.state.service.sweep()
    assert finish(client, session).status_code == 404
    ended = [record["event"] for record in Log(tmp_path / "log") if record.get("request") == session]
    assert ended[-1] == "request.abandoned"
