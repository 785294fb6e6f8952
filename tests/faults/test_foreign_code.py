"""The guard survives plugins and backends that end threads, panic, or change their arguments."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest

from dnp_guard import Guard, hookimpl
from dnp_guard.audit import MemorySink
from dnp_guard.types import Outcome
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy, star
from tests.sampler import run


class Panic(BaseException):
    """A stand-in for the panic that an extension module in another language, such as Rust, may raise."""


FOREIGN = [ValueError("x"), SystemExit(1), CancelledError(), GeneratorExit(), Panic("at the disco")]


class Raises:
    """A backend that raises an error at every query."""

    def __init__(self, error):
        self.error = error

    def ask(self, images, questions):
        raise self.error


@pytest.mark.parametrize("deadline_ms", [None, 5000])
@pytest.mark.parametrize("error", FOREIGN, ids=repr)
def test_nothing_that_a_backend_raises_goes_into_the_generation(error, deadline_ms):
    sink = MemorySink()
    of = policy(queries={"steps": [0.1, 0.5], **({"deadline_ms": deadline_ms} if deadline_ms else {})})
    with Guard(of, vlm=Raises(error), audit=sink) as guard:
        assert run(guard) == (Outcome.FAILED_CLOSED,)
    degraded = [record["reason"] for record in sink.records if record["event"] == "degraded"]
    named = {f"raised {type(error).__name__}" in reason for reason in degraded if reason.startswith("vlm")}
    assert named == {True}


def plugin(does):
    """Build a plugin that calls the function ``does`` in every hook of a generation, with the hook's arguments."""

    class Plugin:
        @hookimpl
        def dnp_guard_before_query(self, request, step, images):
            return does(images=images)

        @hookimpl
        def dnp_guard_negative(self, findings, words, vocabulary):
            return does(findings=findings, words=words)

        @hookimpl
        def dnp_guard_after_decision(self, request, image, step, decision):
            return does(decision=decision, findings=decision.findings)

        @hookimpl
        def dnp_guard_degraded(self, request, reason, detail):
            return does(detail=detail)

    return Plugin()


def outcome(does):
    of = policy(queries={"steps": [0.1, 0.5], "final": True}, categories=[star(still_present="block")])
    with Guard(of, vlm=ScriptedBackend([{"a star": 0.9}]), plugins=[plugin(does)]) as guard:
        return run(guard)


@pytest.mark.parametrize("error", FOREIGN, ids=repr)
def test_nothing_that_a_plugin_raises_goes_into_the_generation(error):
    def raises(**_):
        raise error

    assert outcome(raises) == outcome(lambda **_: None) == (Outcome.BLOCKED,)


def cleared(**shown):
    """Change the arguments of a plugin's hook in place, so that they look as if nothing had been found."""
    for value in shown.values():
        for item in value if isinstance(value, tuple) else (value,):
            for name, new in {"action": None, "findings": (), "negative": None, "probability": 0.0}.items():
                if hasattr(item, name):
                    object.__setattr__(item, name, new)
        if hasattr(value, "clear"):
            value.clear()
        if probabilities := getattr(value, "probabilities", None):
            probabilities.clear()


def test_a_plugin_that_changes_a_decision_in_place_loosens_nothing():
    assert outcome(cleared) == (Outcome.BLOCKED,)


def test_a_plugin_that_changes_a_decision_in_place_takes_no_negative_away():
    monitored = policy(categories=[star(still_present="monitor")])
    sink = MemorySink()
    with Guard(monitored, vlm=ScriptedBackend([{"a star": 0.9}]), plugins=[plugin(cleared)], audit=sink) as guard:
        run(guard)
    injected = [record for record in sink.records if record["event"] == "negative.injected"]
    assert injected[0]["findings"][0]["probability"] == 0.9
