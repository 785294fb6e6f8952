from __future__ import annotations

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmChanged, VlmTimeout
from dnp_guard.testing import BackendContract
from dnp_guard.types import Outcome
from dnp_guard.vlm.base import as_backend
from dnp_guard.vlm.canary import QUESTIONS, Watched, canaries
from dnp_guard.vlm.plugin import build
from dnp_guard.vlm.remote.decisions import SystemOneBackend
from tests.policies import policy
from tests.sampler import PICTURE, finish, start
from tests.vlm import fault_server as faults


class Server:
    """A stand-in for a model server whose model can be exchanged; ``p`` is the probability that it answers."""

    name, revision, addresses = "m", "1", ("http://127.0.0.1/v1",)

    def __init__(self):
        self.p, self.asked, self.error = 0.2, [], None

    def ask(self, images, questions):
        if self.error:
            raise self.error
        self.asked.append(tuple(questions))
        return [[self.p] * len(questions) for _ in images]


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


@pytest.fixture
def backend(server, clock):
    return Watched(server, every_s=3600, clock=clock)


class TestContract(BackendContract):
    @pytest.fixture
    def backend(self, backend):
        return backend


def test_the_pictures_are_asked_about_at_first_and_every_hour(server, backend, clock):
    for now in (0, 3599, 3600, 3601, 7199, 7200):
        clock.now = now
        backend.ask([PICTURE], ["q"])
    assert server.asked == [QUESTIONS, ("q",), ("q",), QUESTIONS, ("q",), ("q",), ("q",), QUESTIONS, ("q",)]


def test_answers_that_have_wandered_too_far_fail_every_question_until_they_are_back(server, backend, clock):
    clock.now, server.p = 3600, 0.5
    for _ in range(2):
        with pytest.raises(VlmChanged, match=r"0\.50 where it was 0\.20"):
            backend.ask([PICTURE], ["q"])
    server.p = 0.25
    assert backend.ask([PICTURE], ["q"]) == [[0.25]]


def test_another_revision_is_noticed_at_once(server, backend):
    server.revision = "2"
    with pytest.raises(VlmChanged, match="revision '2'; it reported '1'"):
        backend.ask([PICTURE], ["q"])


def test_a_server_that_comes_back_is_looked_at_first(server, backend):
    server.error = VlmTimeout("late")
    with pytest.raises(VlmTimeout):
        backend.ask([PICTURE], ["q"])
    server.error, server.p = None, 0.9
    with pytest.raises(VlmChanged):
        backend.ask([PICTURE], ["q"])


def test_it_says_of_itself_what_the_backend_says(backend, server):
    assert backend.info == as_backend(server).info


def test_the_pictures_differ():
    assert len({picture.tobytes() for picture in canaries()}) == 3


def test_a_server_named_by_a_spec_is_watched():
    with faults.running() as server:
        backend = build(f"systemone:m@{server.url}")
        assert isinstance(backend, Watched)
        assert isinstance(backend.wrapped, SystemOneBackend)
        backend.close()


def test_a_change_is_a_failure_of_the_guard_and_the_policy_decides(server, clock):
    sink = MemorySink()
    guard = Guard(policy(on_failure="closed"), vlm=Watched(server, clock=clock), audit=sink)
    clock.now, server.p = 3600, 0.9
    outcomes = finish(start(guard))
    guard.close()
    assert outcomes == (Outcome.FAILED_CLOSED,)
    assert [r["reason"].partition(":")[0] for r in sink.records if r["event"] == "degraded"] == ["vlm_changed"]
