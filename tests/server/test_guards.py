from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from PIL import Image

from dnp_guard.generation.state import Request
from dnp_guard.server.guards import Guards
from dnp_guard.server.settings import Settings
from dnp_guard.telemetry import names
from dnp_guard.vlm import Backend, Either, ScriptedBackend
from tests.waiting import wait_until

PICTURE = Image.new("RGB", (8, 8))


class Waiting(Backend):
    batches = True

    def __init__(self):
        self.began, self.go, self.sizes = Event(), Event(), []

    def ask(self, images, questions):
        self.sizes.append(len(images))
        self.began.set()
        assert self.go.wait(60)
        return [[0.0] * len(questions) for _ in images]


class Server(ScriptedBackend):
    """A stand-in for a backend over HTTP, whose circuit breaker has a chosen state."""

    def __init__(self, state):
        super().__init__({})
        self.state = state

    def states(self):
        return {"http://127.0.0.1:1/v1": self.state}


@pytest.fixture
def guards(request):
    made = Guards(Settings(policy="glyphs", vlm=""), request.param)
    yield made
    made.close()


def finished(guard):
    return guard.start(Request(1, {"name": "test"})).final(lambda: [PICTURE])


@pytest.mark.parametrize("guards", [Waiting()], indirect=True)
def test_tenants_share_one_desk_where_each_takes_its_turn(guards, monkeypatch):
    desk, turns = guards.of("a").desk, []
    backend, ask = desk.backend, desk.ask
    monkeypatch.setattr(desk, "ask", lambda *args, **query: turns.append(query["turn"]) or ask(*args, **query))
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(finished, guards.of("a"))
        assert backend.began.wait(60)
        others = [pool.submit(finished, guards.of(tenant)) for tenant in ("a", "b", "c")]
        wait_until(lambda: desk.waiting == 3)
        backend.go.set()
        assert all(answer.result(60) for answer in (first, *others))
    assert sorted(turns) == ["a", "a", "b", "c"]
    assert backend.sizes == [1, 3]


def test_the_settings_name_a_second_opinion_and_who_judges_finished_images(tmp_path):
    for name in ("small", "second", "large"):
        (tmp_path / name).write_text("star: 0.0")
    specs = {
        key: f"scripted:{tmp_path / name}"
        for key, name in (("vlm", "small"), ("second_opinion", "second"), ("final_vlm", "large"))
    }
    guards = Guards(Settings(policy="glyphs", **specs))
    assert guards.of(None).desk.info.name == "scripted + scripted, finally scripted"
    guards.close()


@pytest.mark.parametrize(
    ("guards", "ready"),
    [(Either(Server("closed"), Server("half-open")), True), (Either(Server("closed"), Server("open")), False)],
    indirect=["guards"],
)
def test_it_is_ready_while_each_of_two_models_can_be_asked(guards, ready):
    guards.of(None)
    assert (guards.unready() == "") is ready


def test_metrics_have_the_tenant_of_as_many_tenants_as_the_settings_say():
    guards = Guards(Settings(policy="glyphs", vlm="", metrics_tenants=1), ScriptedBackend({}))
    for tenant in ("a", "b", "a"):
        finished(guards.of(tenant))
    counted = {
        sample.labels["tenant"]: sample.value
        for metric in guards.registry.collect()
        for sample in metric.samples
        if sample.name == names.GENERATIONS and sample.labels["decision"] == "clean"
    }
    guards.close()
    assert counted == {"a": 2, "other": 1}
