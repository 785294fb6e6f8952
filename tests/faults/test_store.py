"""Generations survive failures of the session store, of the spool of unwritten records, and of a log in a database."""

from __future__ import annotations

import errno
import os
import sqlite3
from itertools import count

import pytest
from starlette.testclient import TestClient

from dnp_guard.audit.read.verify import verify
from dnp_guard.audit.record import build
from dnp_guard.audit.write.outlet import Outlet
from dnp_guard.audit.write.spool import Spool
from dnp_guard.audit.write.sqlite import SqliteSink
from dnp_guard.errors import AuditError
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.faults.databases import failing_databases
from tests.server.conftest import HERE, ask, begin, finish

ERRORS = ("database or disk is full", "database is locked", "disk I/O error", "interrupted")


def raises(error):
    def fail():
        raise sqlite3.OperationalError(error)

    return fail


STEPS = (2, 3, 4, 22)


def generation(client):
    """Run a generation whose image shows a star; return the status codes of its requests, and the final action.

    Every request is repeated until it succeeds, at most four times.
    """
    codes = []

    def sent(request):
        for _ in range(4):
            answer = request()
            codes.append(answer.status_code)
            if answer.is_success:
                return answer.json()
        return {}

    session = sent(lambda: begin(client)).get("session")
    for step in STEPS:
        sent(lambda step=step: ask(client, session, step))
    return codes, sent(lambda: finish(client, session)).get("images", [{}])[0].get("action")


@pytest.fixture
def service(tmp_path):
    """Yield a client of a service, and the database of its session store, which can be made to fail.

    Errors of the service reach the client as HTTP answers.
    """
    settings = Settings(
        policy="glyphs", vlm="", store=f"sqlite:{tmp_path}/sessions", audit=(f"{tmp_path}/log",), keep=True
    )
    with failing_databases() as opened:
        app = create(settings, ScriptedBackend([{"a star": 0.9}]))
    (database,) = opened
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as client:
        yield client, database


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_at_any_call_of_the_store_lets_nothing_through_and_keeps_nobody_out(
    service, tmp_path, error, after, service_table
):
    client, database = service
    tried = 0
    for number in count(1):
        database.arm(number, raises(error), after=after)
        codes, action = generation(client)
        database.disarm()
        if not database.hit:
            break
        tried += 1
        assert action == "block", (number, codes)
        assert set(codes) - {200, 201, 409, 500} == set(), (number, codes)
    assert generation(client)[1] == "block"
    client.app.state.service.guards.of(None).settle()
    text = (tmp_path / "log").read_text()
    assert tried >= 13
    assert verify(tmp_path / "log").ok
    assert text.count('"event":"request.finished"') == tried + 2
    what = f"each of {tried} calls of the store: {error}, {'after' if after else 'before'} it"
    service_table.append((what, "the request", "500, sent again: answered; blocked all the same", "-", "-"))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_fault_at_any_call_of_a_log_in_a_database_loses_no_acknowledged_record(tmp_path, error, after):
    for number in count(1):
        path = tmp_path / f"{number}.db"
        with failing_databases() as opened:
            sink, written = SqliteSink(path), []
        (database,) = opened
        database.arm(number, raises(error), after=after)
        for step in range(4):
            try:
                sink.write(build("query", step=step))
            except AuditError:
                continue
            written.append(f'"step":{step},')
        sink.close()
        finding = verify(path)
        assert finding.ok
        assert finding.records >= len(written) >= 3
        if not database.hit:
            break
    assert number > 10


class Away:
    """A sink that fails until ``back`` is set."""

    def __init__(self):
        self.back, self.held = False, []

    def write(self, record):
        if not self.back:
            raise OSError(errno.EIO, "away")
        self.held.append(record)

    def close(self):
        pass


CALLS = ("open", "write", "close", "ftruncate")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINTR, errno.EAGAIN])
def test_a_fault_at_any_call_of_the_spool_loses_nothing_uncounted(tmp_path, monkeypatch, code):
    for number in count(1):
        calls, hit, counted, sink = count(1), [], [], Away()
        folder = tmp_path / str(number)
        outlet = Outlet(sink, Spool(folder, "s"), counted.append, lambda _, reason: build("degraded", reason=reason))
        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, failing(getattr(os, name), calls, number, hit, code, folder))
            for step in range(5):
                outlet.wait(outlet.put(build("query", step=step)), 30)
        sink.back = True
        outlet.close(30)
        steps = {record["step"] for record in sink.held if "step" in record}
        lost = set(range(5)) - steps
        assert len(lost) <= counted.count("audit_dropped"), (number, hit, lost, counted)
        if not hit:
            break
    assert number > 5


def failing(real, calls, number, hit, code, folder):
    """Wrap a system call, so that the spool's call with this number fails.

    Args:
        real: the system call.
        calls: counter of the spool's calls.
        number: number of the call that fails.
        hit: takes the name of the failed call.
        code: its error code.
        folder: folder of the spool.
    """

    def call(*args, **kwargs):
        ours = isinstance(args[0], int) or str(folder) in str(args[0])
        if ours and next(calls) == number:
            hit.append(real.__name__)
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return call
