from __future__ import annotations

import pytest

from dnp_guard.policy.compare.change import Direction
from dnp_guard.policy.compare.diff import changes, milder
from tests.policies import bolt, policy, star


def sentences(**changed):
    return [(str(change), change.direction) for change in changes(policy(), policy(**changed))]


def of_star(**changed):
    return sentences(categories=[star(**changed), bolt()])


def test_a_policy_does_not_differ_from_itself():
    assert changes(policy(), policy()) == ()


def test_a_lower_threshold_steers_more_images():
    assert of_star(threshold=0.4, final_threshold=0.5) == [
        ("star: threshold 0.5 → 0.4: more images steered", Direction.STRICTER)
    ]


def test_a_harder_action_is_named_with_both_ends():
    assert of_star(action="block") == [("star: action steer → block", Direction.STRICTER)]


@pytest.mark.parametrize(
    ("changed", "direction"),
    [
        ({"threshold": 0.6, "final_threshold": 0.5}, "milder"),
        ({"final_threshold": 0.4}, "stricter"),
        ({"severity": "low"}, "milder"),
        ({"action": "monitor"}, "milder"),
        ({"still_present": "blur"}, "milder"),
        ({"mode": "shadow"}, "milder"),
        ({"allowed": ["a badge"]}, "milder"),
        ({"allowed": {"a star": ["a badge"]}}, "milder"),
        ({"look_for": ["a star", "a nova"]}, "stricter"),
        ({"negative": ["star", "nova"]}, "stricter"),
        ({"guidance": {"scale": 9}}, "stricter"),
        ({"guidance": {"scale": 3}}, "milder"),
        ({"more_than_input": 0.2}, "milder"),
    ],
)
def test_a_change_of_a_category_has_its_direction(changed, direction):
    assert [way for _, way in of_star(**changed)] == [direction]


@pytest.mark.parametrize(
    ("changed", "direction"),
    [
        ({"mode": "shadow"}, "milder"),
        ({"on_failure": "open"}, "milder"),
        ({"inputs": {"query": True}}, "stricter"),
        ({"queries": {"sigmas": [0.9]}}, "stricter"),
        ({"queries": {"steps": [0.2, 0.4, 0.6, 0.8, 0.9]}}, "stricter"),
        ({"queries": {"steps": [0.2, 0.4]}}, "milder"),
        ({"queries": {"steps": [0.3, 0.4]}}, "unclear"),
        ({"queries": {"skip_similar": 0.9}}, "milder"),
        ({"queries": {"deadline_ms": 10}}, "neither"),
        ({"queries": {"max_questions": 10}}, "stricter"),
        ({"queries": {"wait": False}}, "milder"),
        ({"queries": {"budget_ms": 100}}, "milder"),
        ({"queries": {"back_off": {}}}, "milder"),
        ({"question": {"paired": True}}, "stricter"),
        ({"guidance": {"scale": 5}}, "milder"),
        ({"guidance": {"hold": 1}}, "stricter"),
        ({"guidance": {"strength": "severity"}}, "milder"),
        ({"guidance": {"strength": "controller"}}, "milder"),
        ({"guidance": {"mode": "replace", "scale": None, "strength": None}}, "unclear"),
        ({"rules": [{"all": ["star", "bolt"], "action": "block"}]}, "stricter"),
        ({"vlm": {"allow": ["local"]}}, "stricter"),
        ({"audit": {"required": True}}, "stricter"),
        ({"categories": [star()]}, "milder"),
        ({"categories": [star(), bolt(), star(id="nova")]}, "stricter"),
    ],
)
def test_a_change_of_the_policy_has_its_direction(changed, direction):
    assert [way for _, way in sentences(**changed)] == [direction]


def test_a_question_worded_anew_is_for_the_model_to_tell():
    template = "Do you see ${term}?"
    assert sentences(question={"template": template}) == [
        ("star: the questions are worded differently", Direction.UNCLEAR),
        ("bolt: the questions are worded differently", Direction.UNCLEAR),
    ]


def test_whole_steps_and_the_same_fractions_do_not_differ():
    assert sentences(queries={"of": 10, "steps": [2, 4, 6, 8]}) == []


def test_the_name_and_the_revision_change_nothing():
    assert sentences(name="other", revision="9", summary="Else.") == []


def test_changes_that_may_let_more_through_are_marked():
    after = policy(guidance={"hold": 1}, on_failure="last", question={"template": "See ${term}?"})
    assert [change.key for change in milder(policy(), after)] == ["on_failure", "question", "question"]


EXCEPTION = {
    "category": "star",
    "tenant": "acme",
    "set": {"threshold": 0.9},
    "until": "2027-01-02T00:00:00Z",
    "reason": "A trial.",
    "approved_by": "A. Person",
}


def test_an_exception_says_for_whom_until_when_and_why():
    assert sentences(exceptions=[EXCEPTION]) == [
        ("star: an exception for acme until 2027-01-02 00:00 UTC: A trial.", Direction.MILDER)
    ]
    assert [c.direction for c in changes(policy(exceptions=[EXCEPTION]), policy())] == [Direction.STRICTER]


def test_a_lock_that_goes_is_milder():
    assert sentences(floor={"locked": ["star"]}) == [("policy: now locked: star", Direction.STRICTER)]
    assert milder(policy(floor={"locked": ["star"]}), policy())


def test_being_for_others_is_not_for_the_policies_to_tell():
    assert sentences(select={"regions": ["eu"]}) == [("policy: it is for other callers than before", Direction.UNCLEAR)]
