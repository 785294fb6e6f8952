"""A session judges a request's input pictures; the tests pass it answers as values, without a guard or a backend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dnp_guard.errors import VlmError
from dnp_guard.generation import events, judge
from dnp_guard.generation.query import Answer
from dnp_guard.generation.session import Session
from dnp_guard.generation.state import Request
from dnp_guard.server.state import dumps, loads
from dnp_guard.types import Outcome, Step
from tests.policies import bolt, policy, star
from tests.sampler import PICTURE, STEPS

RISING = [star(more_than_input=0.2), bolt()]


def session(images=1, **changes):
    return Session(policy(**changes), Request(images, {"name": "test"}))


def answer(asked, plan, *rows):
    seen = [
        judge.find(
            asked.policy,
            plan.questions,
            [row.get(question.category, 0.0) for question in plan.questions],
            final=plan.step is None,
        )
        for row in rows
    ]
    findings_per_image, probabilities = [findings for findings, _ in seen], [highest for _, highest in seen]
    return Answer([PICTURE] * len(rows), plan.categories, findings_per_image, probabilities, [()] * len(rows), 5.0)


def bring(asked, *rows, of=None, shown=None):
    """Give a session the answers about a request's input pictures, and return the action on every picture.

    Args:
        asked: the session.
        rows: per picture, probabilities by category.
        of: number of the image that every picture belongs to, or None.
        shown: number of frames per picture; one by default.
    """
    plan = asked.plan_inputs(shown or [1] * len(rows))
    asked.inputs(of or [None] * len(rows), plan, answer(asked, plan, *rows))
    return [report.action for report in asked.state.inputs]


def look(asked, at, *rows):
    plan = asked.plan(Step(at, STEPS, 1.0, None))
    asked.asking(plan)
    asked.answered(plan, answer(asked, plan, *rows), plan.step)
    return [negative.text if negative else None for negative in asked.negatives]


def conclude(asked, *rows):
    plan = asked.plan_final()
    asked.answered(plan, answer(asked, plan, *rows))
    return asked.settle()


def test_a_policy_that_says_nothing_asks_about_no_picture():
    assert session().plan_inputs([1]) is None


def test_content_of_the_input_is_no_finding():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.8})
    assert look(asked, 2, {"star": 0.9}) == [None]
    assert conclude(asked, {"star": 0.95}) == (Outcome.CLEAN,)


def test_content_added_to_the_picture_is_a_finding():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.1})
    assert look(asked, 2, {"star": 0.9}) == ["star"]
    assert conclude(asked, {"star": 0.95}) == (Outcome.BLOCKED,)


def test_a_rise_of_exactly_so_much_is_found():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.5})
    assert look(asked, 2, {"star": 0.7}) == ["star"]


def test_a_category_without_the_key_is_found_whatever_the_input_shows():
    asked = session(categories=RISING)
    bring(asked, {"bolt": 0.9})
    assert look(asked, 2, {"bolt": 0.9}) == ["bolt, a bolt, a storm"]


def test_an_input_that_was_not_answered_about_counts_as_nothing():
    asked = session(categories=RISING)
    plan = asked.plan_inputs([1])
    asked.inputs([None], plan, VlmError("no answer"))
    assert look(asked, 2, {"star": 0.9}) == ["star"]
    assert asked.state.degraded == ("vlm_error", "input_unanswered")


def test_the_picture_with_the_lowest_probability_is_the_reference():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.9}, {"star": 0.2})
    assert look(asked, 2, {"star": 0.9}) == ["star"]


def test_a_picture_of_one_image_is_compared_with_that_one():
    asked = session(2, categories=RISING)
    bring(asked, {"star": 0.9}, {"star": 0.1}, of=[{0}, {1}])
    assert look(asked, 2, {"star": 0.9}, {"star": 0.9}) == [None, "star"]


def test_a_request_with_a_blocked_picture_is_over():
    asked = session(2, inputs={"query": True, "action": "block"})
    assert bring(asked, {}, {"star": 0.9}) == ["pass", "block"]
    assert asked.settle() == (Outcome.BLOCKED, Outcome.BLOCKED)
    assert asked.report.images[0].why == "picture 1 of the request is refused: Star calls for block"
    assert not asked.due(2, STEPS)


def test_a_picture_is_refused_although_the_category_may_be_kept():
    asked = session(categories=RISING, inputs={"query": True, "action": "block"})
    assert bring(asked, {"star": 0.9}) == ["block"]


def test_a_monitored_category_refuses_no_picture():
    of_star = star(action="monitor", still_present="monitor")
    asked = session(categories=[of_star], inputs={"query": True, "action": "block"})
    assert bring(asked, {"star": 0.9}) == ["pass"]


@pytest.mark.parametrize("mode", ["policy", "category"])
def test_shadow_refuses_no_picture(mode):
    changes = {"mode": "shadow"} if mode == "policy" else {"categories": [star(mode="shadow"), bolt()]}
    asked = session(inputs={"query": True, "action": "block"}, **changes)
    assert bring(asked, {"star": 0.9}) == ["pass"]
    assert asked.state.inputs[0].decision.would_action == "block"


def test_a_sensitive_category_refuses_a_picture_without_being_told_to():
    asked = session(inputs={"query": True}, categories=[{"id": "star", "sensitive": True}, bolt()])
    assert bring(asked, {"star": 0.9}) == ["block"]


@pytest.mark.parametrize(
    ("on_failure", "action", "outcome"),
    [("closed", "block", Outcome.FAILED_CLOSED), ("last", "block", Outcome.FAILED_CLOSED), ("open", "pass", None)],
)
def test_a_picture_that_nobody_answers_about_is_as_the_policy_says(on_failure, action, outcome):
    asked = session(inputs={"query": True, "action": "block"}, on_failure=on_failure)
    asked.inputs([None], asked.plan_inputs([1]), VlmError("no answer"))
    assert asked.state.inputs[0].action == action
    if outcome is not None:
        assert asked.settle() == (outcome,)


def test_a_picture_that_cannot_be_shown_is_refused_under_open_too():
    asked = session(inputs={"query": True, "action": "block"}, on_failure="open")
    asked.inputs([None], asked.plan_inputs([0]), None)
    assert asked.state.inputs[0].action == "block"


def test_pictures_that_need_too_many_questions_are_not_asked_about():
    asked = session(categories=RISING, queries={"max_questions": 20})
    assert asked.plan_inputs([8]).images == ()
    assert asked.state.degraded == ("max_questions",)


def test_each_picture_is_told_of():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.8}, {})
    input_events = [event for event in asked.events() if isinstance(event, events.InputSeen)]
    assert [(event.index, event.report.action) for event in input_events] == [(0, "pass"), (1, "pass")]


def test_the_findings_of_an_input_go_to_another_worker():
    asked = session(categories=RISING)
    bring(asked, {"star": 0.8})
    going = Session(asked.policy, Request(1, {}), loads(dumps(asked.state)))
    assert replace(going.state, version=0) == replace(asked.state, version=0)
    assert look(going, 2, {"star": 0.9}) == [None]
