"""A replay of an audit log under the same policy repeats the guard's decisions."""

from __future__ import annotations

import json

import pytest

from dnp_guard import Guard
from dnp_guard.audit.read.lines import read_lines
from dnp_guard.errors import VlmError
from dnp_guard.policy.rehearsal.judging import RecordedQuery, answers, run
from dnp_guard.policy.rehearsal.replay import replay
from tests.policies import bolt, policy, star
from tests.sampler import run as run_sampler


class Says:
    """A backend that answers one probability of a star per query, from a list; None means no answer."""

    def __init__(self, probabilities):
        self.probabilities = iter(probabilities)

    def ask(self, images, questions):
        probability = next(self.probabilities)
        if probability is None:
            raise VlmError("no answer")
        return [[probability if "star" in question else 0.0 for question in questions] for _ in images]


@pytest.fixture
def logged(tmp_path):
    """Return a function that runs a guarded generation of one image under a policy, and returns its audit log."""

    def logged(of, *probabilities):
        log = tmp_path / "audit.jsonl"
        with Guard(of, vlm=Says(probabilities), audit=log) as guard:
            (outcome,) = run_sampler(guard)
        return [line.data for line in read_lines(log)], outcome

    return logged


CASES = {
    "clean": [0.1, 0.1, 0.1, 0.1, 0.1],
    "steered": [0.1, 0.9, 0.6, 0.1, 0.1],
    "blocked": [0.1, 0.1, 0.1, 0.1, 0.9],
    "failed_closed": [0.1, 0.1, 0.1, 0.1, None],
}


@pytest.mark.parametrize("outcome", CASES)
def test_under_its_own_policy_nothing_differs(logged, outcome):
    lines, came = logged(policy(), *CASES[outcome])
    assert came == outcome
    result = replay(policy(), policy(), lines)
    assert result.images == 1
    assert result.comparable == 1
    assert result.differing == ()
    assert result.left_out == 0


@pytest.mark.parametrize("outcome", ["blocked", "failed_closed"])
def test_an_end_that_another_policy_decides_otherwise_is_told_from_how_it_ended(logged, outcome):
    after = policy(on_failure="open", categories=[star(still_present="blur"), bolt()])
    (one,) = replay(policy(), after, logged(policy(), *CASES[outcome])[0]).differing
    assert one.before == outcome
    assert one.after in {"blurred", "failed_open"}


def test_the_first_negative_that_differs_is_told_by_its_step(logged):
    after = policy(categories=[star(threshold=0.7), bolt()])
    (one,) = replay(policy(), after, logged(policy(), *CASES["steered"])[0]).differing
    assert one.step == 6
    assert one.before == "star"
    assert one.after == "no negative"


def test_a_record_in_shadow_is_compared_with_enforcing_it(logged):
    shadow = policy(mode="shadow")
    lines, came = logged(shadow, *CASES["steered"])
    assert came == "clean"
    (one,) = replay(shadow, policy(), lines).differing
    assert one.step == 4
    assert one.before == "no negative"
    assert one.after == "star"


def test_a_look_that_was_missed_and_made_up_for_is_missed_in_the_replay_too(logged):
    lines, came = logged(policy(), 0.1, None, 0.1, 0.1, 0.1, 0.1)
    assert came == "clean"
    assert any(json.loads(line)["event"] == "degraded" for line in lines)
    assert replay(policy(), policy(), lines).differing == ()


def test_the_record_gives_the_scales_of_the_controller_again(logged):
    of = policy(guidance={"strength": "controller", "hold": 2, "scale": 15})
    lines, _ = logged(of, 0.512345678, 0.987654321, 0.1, 0.654321987, 0.1)
    records = [json.loads(line) for line in lines]
    looks = [record for record in records if record["event"] == "query" and "step" in record]
    given = [
        answers({finding["term"]: finding["probability"] for finding in look.get("findings", [])}) for look in looks
    ]
    course = run(of, given, answers({}), [RecordedQuery(look["step"] / look["steps"]) for look in looks])
    scales = {look["step"]: decision.negative.scale for look, decision in zip(looks, course.decisions, strict=True)}
    injected = {r["step"]: r["negative"]["scale"] for r in records if r["event"] == "negative.injected"}
    assert len(set(injected.values())) > 2
    assert {step: scales[step] for step in injected} == injected


def test_a_look_is_replayed_at_its_own_part_of_the_run(logged):
    late = [{"from": 0, "to": 0.5, "value": 0.95}, {"from": 0.5, "to": 1, "value": 0.5}]
    before = policy(queries={"steps": [0.6]}, categories=[star(threshold=late, final_threshold=0.5), bolt()])
    after = policy(queries={"steps": [0.1, 0.6]}, categories=[star(threshold=late, final_threshold=0.5), bolt()])
    lines, came = logged(before, 0.9, 0.1)
    assert came == "steered"
    assert replay(before, after, lines).differing == ()


def test_a_look_that_asked_about_some_categories_counts_nothing_down_of_the_others(logged):
    held = policy(
        guidance={"hold": 1},
        queries={"steps": [0.2, 0.4, 0.6]},
        categories=[star(queries={"steps": [0.2]}), bolt()],
    )
    lines, came = logged(held, 0.9, 0.1, 0.1, 0.1)
    assert came == "steered"
    assert not any(json.loads(line)["event"] == "negative.cleared" for line in lines)
    more = policy(guidance={"hold": 3}, queries={"steps": [0.2, 0.4, 0.6]}, categories=held.categories)
    assert replay(held, more, lines).differing == ()
