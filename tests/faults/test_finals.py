"""Several workers may receive the last request of a session at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
from starlette.testclient import TestClient

from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.server.conftest import HERE, ask, begin, finish


class Together:
    """A backend that finds nothing; its calls wait up to half a second for one another if ``final`` is set."""

    def __init__(self, workers):
        self.barrier = threading.Barrier(workers)
        self.final = False

    def ask(self, images, questions):
        if self.final:
            with suppress(threading.BrokenBarrierError):
                self.barrier.wait(0.5)
        return [[0.0] * len(questions)] * len(images)


@pytest.fixture
def workers(tmp_path):
    """Start four service workers that share a session store and an audit log; yield their clients and their backend."""
    backend = Together(4)
    made = Settings(policy="glyphs", vlm="", store=f"sqlite:{tmp_path}/sessions", keep=True, audit=(f"{tmp_path}/log",))
    with ExitStack() as stack:
        yield [stack.enter_context(TestClient(create(made, backend), base_url=HERE)) for _ in range(4)], backend


def test_one_of_four_simultaneous_finals_is_recorded(workers, tmp_path):
    clients, backend = workers
    session = begin(clients[0]).json()["session"]
    ask(clients[0], session, 22)
    backend.final = True
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda client: finish(client, session), clients))
    codes = sorted(answer.status_code for answer in answers)
    assert codes[0] == 200
    assert set(codes[1:]) <= {200, 409, 503}
    assert (tmp_path / "log").read_text().count('"event":"request.finished"') == 1
    assert finish(clients[3], session).json() == next(answer for answer in answers if answer.is_success).json()


def test_an_end_and_a_final_at_once_leave_one_record(workers, tmp_path):
    clients, backend = workers
    session = begin(clients[0]).json()["session"]
    ask(clients[0], session, 22)
    backend.final = True
    with ThreadPoolExecutor(2) as pool:
        pool.submit(finish, clients[0], session)
        pool.submit(clients[1].delete, f"/v1/sessions/{session}")
    text = (tmp_path / "log").read_text()
    assert text.count('"event":"request.finished"') + text.count('"event":"request.abandoned"') == 1
