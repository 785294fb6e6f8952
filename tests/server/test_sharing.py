"""The requests of a session may go to different workers of the service."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from dnp_guard.server import state
from dnp_guard.server.app import create
from dnp_guard.server.settings import Settings
from tests.server.conftest import HERE, ask, begin, finish

LOOKS = 12
probabilities = st.sampled_from([0.0, 0.4, 0.6, 1.0])
looks = st.lists(st.tuples(*[st.tuples(*[probabilities] * 3)] * 2), min_size=LOOKS, max_size=LOOKS)


class Table:
    """A backend that answers every query with the next row: probabilities for two images and three questions."""

    name = "table"

    def __init__(self, rows):
        self.rows = iter(rows)

    def ask(self, images, questions):
        return next(self.rows)


def workers(folder, rows, count):
    backend = Table(rows)
    made = Settings(policy="glyphs", vlm="", store=f"sqlite:{folder}/sessions", keep=True, audit=(f"{folder}/log",))
    return [TestClient(create(made, backend), base_url=HERE) for _ in range(count)]


def generation(rows, turns):
    """Run a generation whose requests go to several workers.

    Args:
        rows: answers of the backend, query by query.
        turns: number of the worker for every query.

    Returns:
        The answers, the verdicts, and the number of recorded negatives.
    """
    with tempfile.TemporaryDirectory() as folder:
        clients = workers(folder, rows, max(turns) + 1)
        opened = begin(clients[0], images=2).json()
        answers = [
            ask(clients[turn], opened["session"], step, 2).json()
            for step, turn in zip(opened["due"], turns, strict=False)
        ]
        verdicts = finish(clients[turns[-1]], opened["session"], 2).json()["images"]
        for client in clients:
            client.app.state.service.close(keep=True)
        written = Path(folder, "log").read_text().count('"event":"negative.injected"')
    return answers, verdicts, written


@settings(max_examples=8)
@given(looks, st.lists(st.integers(0, 2), min_size=LOOKS, max_size=LOOKS))
def test_it_does_not_matter_which_worker_answers(rows, turns):
    assert generation(rows, turns) == generation(rows, [0] * LOOKS)


def test_a_session_is_the_same_when_it_was_read_back(serve, monkeypatch):
    client, drivers = serve([{"a star": 0.9}, {"a star": 0.1}]), []
    guard = client.app.state.service.guards.of(None)
    start = guard.start
    monkeypatch.setattr(guard, "start", lambda *args: drivers.append(start(*args)) or drivers[-1])
    opened = begin(client).json()
    for step in opened["due"][:4]:
        ask(client, opened["session"], step)
    before = drivers[0].session.state
    assert state.loads(state.dumps(before)) == before


def test_one_of_two_workers_that_change_a_session_must_repeat_its_request():
    with tempfile.TemporaryDirectory() as folder:
        one, other = workers(folder, [[[0.0] * 3]] * 9, 2)
        session = begin(one).json()["session"]
        theirs = other.app.state.service.store
        stale = theirs.load(session)
        ask(one, session, 2)
        theirs.load = lambda _: stale
        answer = ask(other, session, 4)
        assert answer.json()["type"] == "urn:dnp-guard:problem:busy"
        assert answer.headers["retry-after"] == "1"
        del theirs.load
        assert ask(other, session, 4).status_code == 200
        for client in (one, other):
            client.app.state.service.close(keep=True)


def test_the_state_of_a_session_goes_when_it_is_over(serve):
    client = serve({"a star": 0.9})
    opened = begin(client).json()
    ask(client, opened["session"], 22)
    store = client.app.state.service.store
    assert store.load(opened["session"]).state
    finish(client, opened["session"])
    assert store.load(opened["session"]).state == ""
