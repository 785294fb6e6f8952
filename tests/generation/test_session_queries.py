"""A session has queries at due steps, and can let denoising continue while a query is running."""

import threading

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmError
from dnp_guard.generation.host import Pictures
from dnp_guard.types import Outcome
from dnp_guard.vlm.deadline import remaining
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import bolt, policy, star
from tests.sampler import PICTURE, STEPS, Holds, denoise, finish, run, start
from tests.waiting import wait_until


class Gate:
    """A backend that gives its next answer, the probability of a star, only after the test has released it.

    Args:
        answers: probabilities of a star, or errors to raise, query by query.
    """

    def __init__(self, answers):
        self.answers, self.open, self.asked = list(answers), threading.Semaphore(0), threading.Semaphore(0)
        self.threads = []

    def ask(self, images, questions):
        self.threads.append(threading.current_thread())
        self.asked.release()
        assert self.open.acquire(timeout=30)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [[answer if "star" in question else 0.0 for question in questions] for _ in images]


def looked(sink):
    return [(r["event"], r.get("step"), r.get("reason")) for r in sink.records if r["event"].startswith("query")]


def guarded(script, sink=None, **queries):
    of = policy(queries={"steps": [0.1, 0.2, 0.3, 0.5, 0.7, 0.9], **queries})
    return Guard(of, vlm=ScriptedBackend(script), audit=sink)


def test_a_clean_image_is_looked_at_less_and_less():
    sink = MemorySink()
    run(guarded([{}], sink, back_off={"factor": 3}))
    assert looked(sink) == [
        ("query", 1, None),
        ("query.skipped", 2, "quiet"),
        ("query.skipped", 3, "quiet"),
        ("query", 5, None),
        ("query.skipped", 7, "quiet"),
        ("query.skipped", 9, "quiet"),
        ("query", None, None),
    ]


def test_an_image_in_which_something_is_near_is_looked_at_at_every_step_of_the_list():
    sink = MemorySink()
    run(guarded([{"star": 0.2}], sink, back_off={}))
    assert [step for _, step, _ in looked(sink)] == [1, 2, 3, 5, 7, 9, None]
    assert {r.get("reason") for r in sink.records} == {None}


@pytest.mark.parametrize("hold", [0, 9])
def test_once_something_was_found_no_look_is_quiet(hold):
    sink = MemorySink()
    watching = Guard(
        policy(queries={"steps": [0.1, 0.2, 0.3, 0.4], "back_off": {}}, guidance={"hold": hold}),
        vlm=ScriptedBackend([{"star": 0.9}, {}]),
        audit=sink,
    )
    run(watching)
    assert [step for _, step, _ in looked(sink)] == [1, 2, 3, 4, None]


def test_no_step_is_passed_over_at_which_a_sensitive_category_is_due():
    nova = star(id="nova", sensitive=True, queries={"steps": [0.1, 0.3]})
    of = policy(categories=[star(), bolt(), nova], queries={"steps": [0.1, 0.2, 0.3], "back_off": {}})
    sink = MemorySink()
    run(Guard(of, vlm=ScriptedBackend([{}]), audit=sink))
    assert looked(sink)[:3] == [("query", 1, None), ("query.skipped", 2, "quiet"), ("query", 3, None)]


def test_each_image_of_a_batch_has_a_pace_of_its_own():
    sink = MemorySink()
    of = policy(queries={"steps": [0.1, 0.2, 0.3], "back_off": {}}, guidance={"hold": 9})
    sizes = []

    def answers(images, questions):
        sizes.append(len(images))
        row = [0.9 if "star" in question else 0.0 for question in questions]
        # The second image shows a star; if the query is about it only, it is the only image.
        return [row if len(images) == 1 or index == 1 else [0.0] * len(questions) for index in range(len(images))]

    holds = Holds()
    watching = Guard(of, vlm=ScriptedBackend(answers), audit=sink)
    denoise(start(watching, 3, steering=holds), holds=holds)
    watching.settle()
    at_two = {r["image"]: r.get("reason") for r in sink.records if r.get("step") == 2}
    assert at_two == {0: "quiet", 1: None, 2: "quiet"}
    assert sizes == [3, 1, 1]
    assert holds.held == {1: [None, "star", None]}


def test_the_record_tells_how_near_a_quiet_look_came():
    sink = MemorySink()
    run(guarded([{"bolt": 0.05}], sink, back_off={}))
    first = next(r for r in sink.records if r["event"] == "query")
    assert first["nearest"] == 0.1


def test_once_the_budget_is_waited_away_only_the_final_look_is_made(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr("dnp_guard.generation.driver.perf_counter", lambda: next(clock) * 0.25)
    sink = MemorySink()
    run(guarded([{"star": 0.4}], sink, budget_ms=500))
    assert [step for event, step, _ in looked(sink) if event == "query"] == [1, 2, None]
    assert {reason for _, _, reason in looked(sink)} == {None, "budget_ms"}


def test_a_skip_for_likeness_says_so():
    sink = MemorySink()
    run(guarded([{}], sink, skip_similar=0.9), view=lambda index: Pictures([PICTURE], [0.95]))
    assert ("query.skipped", 2, "similar") in looked(sink)


def not_waiting(backend, sink=None, **changes):
    of = policy(**{"queries": {"steps": [0.1, 0.4], "wait": False}, **changes})
    return Guard(of, vlm=backend, audit=sink)


def run_late(gate, sink, at):
    """Run a generation without waiting, in which the first answer arrives just before step ``at``.

    Returns:
        The words of the negatives by step, and the outcomes.
    """
    holds = Holds()
    driver = start(not_waiting(gate, sink), steering=holds, takes_up=True)

    def before(index):
        if index == at:
            gate.open.release(100)
        if index >= at and driver.session.state.in_flight:
            wait_until(lambda: driver.due(index, STEPS))

    denoise(driver, holds=holds, before=before)
    return holds.held, finish(driver)


def test_a_verdict_steers_from_the_step_at_which_it_arrives():
    sink, gate = MemorySink(), Gate([0.9, 0.9, 0.0])
    held, outcomes = run_late(gate, sink, at=3)
    injected = next(r for r in sink.records if r["event"] == "negative.injected")
    query = next(r for r in sink.records if r["event"] == "query")
    assert injected["step"] == query["step"] == 1
    assert injected["applied_step"] == query["applied_step"] == 4
    assert held == {3: ["star"]}
    assert outcomes == (Outcome.STEERED,)


def test_a_due_step_is_passed_over_while_a_query_is_in_flight():
    sink, gate = MemorySink(), Gate([0.9, 0.0])
    run_late(gate, sink, at=6)
    assert looked(sink)[0] == ("query.skipped", 4, "in_flight")


def test_denoising_does_not_wait_and_the_final_look_does():
    gate = Gate([0.9, 0.9])
    driver = start(not_waiting(gate), takes_up=True)
    denoise(driver)
    gate.open.release(100)
    assert finish(driver) == (Outcome.BLOCKED,)
    assert [query.step for query in driver.report.images[0].queries] == [1, None]


def test_an_answer_after_the_last_step_is_recorded_and_steers_nothing():
    sink, gate = MemorySink(), Gate([0.9, 0.0])
    holds = Holds()
    driver = start(not_waiting(gate, sink), steering=holds, takes_up=True)
    denoise(driver, holds=holds)
    gate.open.release(100)
    finish(driver)
    assert not holds.held
    assert not [r for r in sink.records if r["event"] == "negative.injected"]
    assert "applied_step" not in next(r for r in sink.records if r["event"] == "query")


def test_an_answer_that_fails_is_asked_for_again_at_the_next_step():
    sink, gate = MemorySink(), Gate([VlmError("down"), 0.0, 0.0, 0.0])
    run_late(gate, sink, at=3)
    assert next(step for event, step, _ in looked(sink) if event == "query") == 3
    assert [r["step"] for r in sink.records if r["event"] == "degraded"] == [1]


def test_without_a_final_look_the_last_answer_is_waited_for():
    gate = Gate([0.9])
    of = {"queries": {"steps": [0.9], "wait": False, "final": False}, "categories": [star(action="block")]}
    driver = start(not_waiting(gate, **of), takes_up=True)
    denoise(driver)
    gate.open.release(100)
    assert finish(driver) == (Outcome.BLOCKED,)


def test_a_generation_that_ends_early_leaves_no_thread_behind():
    gate = Gate([0.9])
    watching = not_waiting(gate)
    driver = start(watching, takes_up=True)
    denoise(driver, steps=3)
    assert gate.asked.acquire(timeout=30)
    driver.abandon("stopped")
    gate.open.release(100)
    watching.close()
    for thread in gate.threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in gate.threads)


def test_a_host_that_cannot_take_up_an_answer_later_is_made_to_wait():
    gate = Gate([0.9, 0.9, 0.0])
    gate.open.release(100)
    holds = Holds()
    denoise(start(not_waiting(gate), steering=holds), steps=2, holds=holds)
    assert holds.held == {1: ["star"]}


@pytest.mark.parametrize("wait", [True, False])
def test_an_excuse_is_asked_for_within_the_deadline_of_its_look(wait, monkeypatch):
    clock = iter((0.0, 40.0, 0.0, 1.0))  # making the pictures takes 40 of the 60 seconds
    monkeypatch.setattr("dnp_guard.vlm.desk.perf_counter", lambda: next(clock))
    left = {}

    class Backend:
        def ask(self, images, questions):
            left[questions[0]] = remaining(1e9)
            return [[0.9] * len(questions) for _ in images]

    of = policy(
        categories=[star(allowed=["a flag"])],
        queries={"steps": [0.1], "deadline_ms": 60_000, "wait": wait, "final": False},
    )
    run(Guard(of, vlm=Backend()), takes_up=True)
    assert left["is there a star in this image?"] > 20
    assert 0 < left["Does this image show a flag?"] <= 20


def test_nothing_is_left_of_a_deadline_that_the_look_itself_took(monkeypatch):
    clock = iter((0.0, 60.0, 0.0))
    monkeypatch.setattr("dnp_guard.vlm.desk.perf_counter", lambda: next(clock))
    of = policy(categories=[star(allowed=["a flag"])], queries={"steps": [0.1], "deadline_ms": 60_000, "final": False})
    watching = Guard(of, vlm=ScriptedBackend([{"star": 0.9, "a flag": 1.0}]))
    run(watching)
    assert watching.last.degraded == ("vlm_timeout",)
    assert watching.last.images[0].queries[0].decision.findings


@pytest.mark.parametrize(("action", "outcome"), [("block", Outcome.BLOCKED), ("steer", Outcome.MONITORED)])
def test_a_finding_stands_even_if_the_host_could_not_steer(action, outcome):
    class Unable:
        def hold(self, negatives):
            raise RuntimeError("no text encoder")

    of = policy(on_failure="last", categories=[star(action=action)])
    driver = start(Guard(of, vlm=ScriptedBackend([{"star": 0.9}])), steering=Unable())
    denoise(driver)

    def lost():
        raise RuntimeError("no pictures")

    assert driver.final(lost) == (outcome,)


def test_a_negative_that_takes_effect_later_is_told_when_it_does():
    sink = MemorySink()
    of = policy(categories=[star(still_present="monitor")])
    watching = Guard(of, vlm=ScriptedBackend([{"star": 0.9}]), audit=sink)
    driver = start(watching)
    denoise(driver, effective=lambda index: index >= 4)
    watching.settle()
    injected = [(r["step"], r["negative"]["effective"]) for r in sink.records if r["event"] == "negative.injected"]
    assert injected == [(2, False), (4, True)]
    assert finish(driver) == (Outcome.STEERED,)
