"""The policy decides about images if the vision-language model's server fails; writes ``build/fault-table.md``."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.generation.host import Pictures
from dnp_guard.types import Outcome, Step
from dnp_guard.vlm.remote.decisions import SystemOneBackend
from tests.policies import policy
from tests.sampler import PICTURE, denoise, finish, start
from tests.vlm import fault_server as faults

TABLE = Path(__file__).parents[2] / "build" / "fault-table.md"
DEADLINE_MS = 400

EXPECTED = {"closed": Outcome.FAILED_CLOSED, "open": Outcome.FAILED_OPEN, "last": Outcome.FAILED_CLOSED}


CASES = {"refused": (None, "vlm_error"), **faults.FAULTS}


AFTER_THE_FIRST = dict.fromkeys(("429, Retry-After in time", "429, Retry-After too late"), "vlm_circuit_open")
"""The reason after the first query for faults in which the server asks for a pause: the guard respects it."""


def run(guard):
    """Run a generation of two steps; return its outcome and the milliseconds that every query took.

    The second step has a query only if the first one fails.
    """
    driver, waits = start(guard), []
    for index in range(2):
        if driver.due(index, 2):
            started = time.perf_counter()
            driver.step(Step(index, 2, 1.0, None), Pictures([PICTURE]))
            waits.append((time.perf_counter() - started) * 1000)
    (outcome,) = finish(driver)
    return outcome, waits


@pytest.fixture(scope="module")
def table():
    rows = []
    yield rows
    TABLE.parent.mkdir(exist_ok=True)
    head = ("fault", "on_failure", "outcome", f"slowest look, ms (deadline {DEADLINE_MS})", "`degraded` records")
    lines = [head, ["---"] * len(head), *rows]
    TABLE.write_text("".join(f"| {' | '.join(line)} |\n" for line in lines), encoding="utf-8")


def guarded(server, on_failure, registry, sink):
    of = policy(on_failure=on_failure, queries={"steps": [0.0], "final": False, "deadline_ms": DEADLINE_MS})
    backend = SystemOneBackend("m", [server.url])
    return Guard(of, vlm=backend, registry=registry, audit=sink), backend


def counted(registry, reason):
    return registry.get_sample_value("dnp_guard_degraded_total", {"reason": reason}) or 0


@pytest.mark.parametrize("on_failure", EXPECTED)
@pytest.mark.parametrize("name", CASES)
def test_a_fault_of_the_server_is_recorded_and_the_policy_decides(name, on_failure, table):
    registry, sink = CollectorRegistry(), MemorySink()
    fault, reason = CASES[name]
    before = set(threading.enumerate())
    with faults.running() as server:
        guard, backend = guarded(server, on_failure, registry, sink)
        if fault is None:
            server.close()
        server.fault = fault
        outcome, waits = run(guard)
        guard.close()
        backend.close()
    degraded = [record["reason"] for record in sink.records if record["event"] == "degraded"]
    records = [record for record in degraded if record.startswith("vlm_")]
    finished = [record["decision"] for record in sink.records if record["event"] == "request.finished"]
    table.append(
        (
            name,
            on_failure,
            outcome,
            f"{max(waits):.0f}",
            " · ".join(dict.fromkeys(" ".join(record.split())[:90] for record in records)),
        )
    )
    assert outcome == EXPECTED[on_failure] == finished[0]
    assert [record.partition(":")[0] for record in records] == [reason, AFTER_THE_FIRST.get(name, reason)]
    assert sum(counted(registry, code) for code in {reason, "vlm_circuit_open"}) == 2
    assert registry.get_sample_value("dnp_guard_queries_total", {"policy": "test", "outcome": "failed"}) == 2
    assert max(waits) <= DEADLINE_MS + 5000  # a busy machine is late; the table shows by how much
    left = set(threading.enumerate()) - before
    assert not [thread.name for thread in left if thread.name.startswith("dnp-guard")]


def test_a_server_that_recovers_clears_the_miss():
    registry, sink = CollectorRegistry(), MemorySink()

    def once(server, connection, body):
        server.fault = None
        faults.status("404 Not Found")(server, connection, body)

    with faults.running() as server:
        guard, backend = guarded(server, "closed", registry, sink)
        server.fault = once
        assert run(guard)[0] is Outcome.CLEAN
        guard.close()
        backend.close()


def test_a_decision_stands_where_the_policy_says_last_and_the_server_fails_later():
    with faults.running() as server:
        backend = SystemOneBackend("m", [server.url])
        of = policy(on_failure="last", queries={"steps": [0.0], "deadline_ms": DEADLINE_MS})
        guard = Guard(of, vlm=backend)
        driver = start(guard)
        denoise(driver, steps=1, total=2)
        server.fault = faults.status("404 Not Found")
        assert finish(driver) == (Outcome.CLEAN,)
        guard.close()
        backend.close()
