from __future__ import annotations

import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from dnp_guard.errors import VlmBadAnswer, VlmCircuitOpen, VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.vlm.deadline import within
from dnp_guard.vlm.remote.breaker import Breaker
from dnp_guard.vlm.remote.transport import KEY, PLAIN_HTTP, Refused, Transport
from tests.vlm import fault_server as faults
from tests.waiting import wait_until

BODY = {"questions": {"q0": {}}}


@pytest.fixture
def server():
    with faults.running() as started:
        yield started


@pytest.fixture
def transport(server):
    made = Transport([server.url])
    yield made
    made.close()


@pytest.fixture
def nobody():
    """Return an address at which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    return f"http://127.0.0.1:{port}/v1"


def test_answers_come_in_the_order_of_the_requests(server, transport):
    bodies = [{"questions": {f"q{i}": {}}} for i in range(20)]
    assert [list(answer["answers"]) for answer in transport.post("/x", bodies)] == [[f"q{i}"] for i in range(20)]


def test_connections_are_used_again(server, transport):
    for _ in range(5):
        transport.post("/x", [BODY])
    assert server.connections == 1


def test_no_more_requests_run_at_once_than_allowed(server):
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(2, timeout=5)

    def count(server, connection, body):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()
        with lock:
            running -= 1
        faults.replied(b"{}")(server, connection, body)

    server.fault = count
    transport = Transport([server.url], concurrency=2)
    transport.post("/x", [BODY] * 8)
    transport.close()
    assert most == 2


def test_several_threads_share_one_transport(server, transport):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: transport.post("/x", [BODY]), range(40)))
    assert len(answers) == 40


def test_the_key_goes_into_one_header_and_nowhere_else(server, transport, monkeypatch, caplog):
    monkeypatch.setenv(KEY, "hunter2")
    caplog.set_level(logging.DEBUG)
    transport.post("/x", [BODY])
    server.fault = faults.status("401 Unauthorized")
    with pytest.raises(Refused) as raised:
        transport.post("/x", [BODY])
    assert "authorization: bearer hunter2" in server.headers[0]
    assert "hunter2" not in caplog.text + str(raised.value) + repr(transport)


def test_proxies_of_the_environment_are_not_used(server, monkeypatch, nobody):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, nobody)
    transport = Transport([server.url])
    assert transport.post("/x", [BODY])
    transport.close()


def test_a_redirect_is_not_followed(server, transport):
    with faults.running() as elsewhere:
        server.fault = faults.status("307 Temporary Redirect", f"Location: {elsewhere.url}/x\r\n")
        with pytest.raises(VlmBadAnswer, match="307"):
            transport.post("/x", [BODY])
        assert elsewhere.connections == 0


def test_a_failure_that_passes_is_tried_once_more(server, transport):
    left = [faults.status("503 Service Unavailable")]

    def first_fails(server, connection, body):
        server.fault = None
        left.pop()(server, connection, body)

    server.fault = first_fails
    assert transport.post("/x", [BODY])
    assert len(server.requests) == 2


def test_it_is_tried_no_more_than_twice(server, transport):
    server.fault = faults.status("500 Internal Server Error")
    with pytest.raises(VlmError, match="500"):
        transport.post("/x", [BODY])
    assert len(server.requests) == 2


def test_a_refusal_is_not_tried_again_and_does_not_open_the_breaker(server, transport):
    server.fault = faults.status("422 Unprocessable Content")
    for _ in range(5):
        with pytest.raises(Refused):
            transport.post("/x", [BODY])
    assert len(server.requests) == 5
    assert set(transport.states().values()) == {"closed"}


def test_a_server_that_asks_for_a_pause_is_asked_again_after_it(server, transport):
    def busy(server, connection, body):
        server.fault = None
        faults.status("429 Too Many Requests", "Retry-After: 0.2\r\n")(server, connection, body)

    server.fault = busy
    started = time.monotonic()
    assert transport.post("/x", [BODY])
    assert time.monotonic() - started >= 0.2


def test_a_pause_longer_than_the_deadline_is_not_waited_for(server, transport):
    server.fault = faults.status("429 Too Many Requests", "Retry-After: 30\r\n")
    started = time.monotonic()
    with pytest.raises(VlmError, match="429"):
        transport.post("/x", [BODY])
    assert time.monotonic() - started < 20


def test_another_address_takes_over_at_once(server, nobody):
    transport = Transport([nobody, server.url])
    assert transport.post("/x", [BODY])
    transport.close()


def test_an_address_that_keeps_failing_is_left_alone(server):
    with faults.running() as broken:
        broken.fault = faults.status("500 Internal Server Error")
        transport = Transport([broken.url, server.url])
        for _ in range(10):
            transport.post("/x", [BODY])
        transport.close()
    assert len(broken.requests) == 3
    assert transport.states() == {broken.url: "open", server.url: "closed"}


def test_an_outage_of_every_address_is_refused_without_asking(server, transport):
    server.fault = faults.status("500 Internal Server Error")
    for _ in range(2):
        with pytest.raises(VlmError):
            transport.post("/x", [BODY])
    asked = len(server.requests)
    with pytest.raises(VlmCircuitOpen):
        transport.post("/x", [BODY])
    assert len(server.requests) == asked


@dataclass(frozen=True, slots=True)
class Hasty(Breaker):
    """A circuit breaker whose pause after failures is practically zero."""

    pause: float = 1e-6


def test_it_comes_back_by_itself(server, monkeypatch):
    monkeypatch.setattr("dnp_guard.vlm.remote.transport.Breaker", Hasty)
    transport = Transport([server.url])
    server.fault = faults.status("500 Internal Server Error")
    for _ in range(Breaker().threshold):
        with pytest.raises(VlmError):
            transport.post("/x", [BODY])
    server.fault = None
    assert transport.states() == {server.url: "half-open"}
    assert transport.post("/x", [BODY])
    assert transport.states() == {server.url: "closed"}
    transport.close()


def test_a_query_of_many_requests_that_all_fail_is_one_failure(server, transport):
    server.fault = faults.silence
    with within(200), pytest.raises(VlmTimeout):
        transport.post("/x", [BODY] * 8)
    assert transport.states() == {server.url: "closed"}  # the breaker opens after three failures


@pytest.mark.parametrize("fault", [faults.slow_loris, faults.slow_body, faults.silence, faults.endless])
def test_a_server_that_never_ends_costs_no_more_than_the_deadline(server, transport, fault):
    transport.post("/x", [BODY])
    server.fault = fault
    started = time.monotonic()
    with within(500), pytest.raises(VlmTimeout):
        transport.post("/x", [BODY])
    # The server would never end by itself; the fault table shows how close the guard keeps to the deadline.
    assert 0.4 < time.monotonic() - started < 10


def test_a_deadline_that_has_passed_asks_nobody(server, transport):
    with within(0), pytest.raises(VlmTimeout):
        transport.post("/x", [BODY])
    assert server.connections == 0


def test_the_thread_ends_with_close(server):
    before = set(threading.enumerate())
    transport = Transport([server.url])
    transport.post("/x", [BODY])
    transport.close()
    assert "dnp-guard-http" not in {thread.name for thread in set(threading.enumerate()) - before}
    with pytest.raises(VlmError, match="closed"):
        transport.post("/x", [BODY])


def test_close_ends_a_request_that_runs(server):
    server.fault = faults.silence
    transport = Transport([server.url])
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(transport.post, "/x", [BODY])
        wait_until(lambda: server.requests)
        transport.close()
        with pytest.raises(VlmError, match="closed"):
            running.result(5)


@pytest.mark.parametrize("url", ["http://example.com/v1", "http://10.0.0.1"])
def test_another_machine_is_reached_with_tls_only(url, monkeypatch):
    monkeypatch.delenv(PLAIN_HTTP, raising=False)
    with pytest.raises(VlmUnavailable, match="unencrypted"):
        Transport([url])
    assert Transport([url.replace("http:", "https:")]).local is False


def test_a_network_of_ones_own_may_be_told_to_be_fine(monkeypatch):
    monkeypatch.setenv(PLAIN_HTTP, "1")
    assert Transport(["http://10.0.0.1"]).addresses == ("http://10.0.0.1/v1",)
