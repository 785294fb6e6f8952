from __future__ import annotations

import json

import pytest

from dnp_guard.policy.rehearsal.replay import Differing, replay
from tests.policies import bolt, policy, star

A = policy()


def seen(probability, term="a star", category="star"):
    return {"category": category, "term": term, "probability": probability, "threshold": 0.5}


def record(*looks, final=(), of=A, request="r1", finished=True):
    """Return the lines of an audit log about one image.

    Args:
        looks: findings of every look; None for a look without an answer.
        final: findings of the final look.
        of: the policy.
        request: id of the generation.
        finished: whether the generation was finished.
    """
    common = {"request": request, "policy": {"digest": of.digest}}
    events = [
        {"event": "degraded", "step": step, "reason": "vlm_timeout: late", **common}
        if findings is None
        else {"event": "query", "image": 0, "step": step, "findings": list(findings), **common}
        for step, findings in enumerate(looks)
    ]
    events.append({"event": "query", "image": 0, "findings": list(final), **common})
    if finished:
        events.append({"event": "request.finished", "image": 0, "decision": "clean", **common})
    return [json.dumps(event).encode() for event in events]


def test_the_same_policy_ends_every_image_the_same():
    result = replay(A, A, record([seen(0.9)], []))
    assert result.images == 1
    assert result.comparable == 1
    assert result.differing == ()


def test_a_replay_stops_at_the_first_negative_that_differs():
    result = replay(A, policy(categories=[star(threshold=0.8), bolt()]), record([], [seen(0.7)], [seen(0.9)]))
    assert result.comparable == 0
    (one,) = result.differing
    assert one == Differing("r1", image=0, step=1, before="star", after="no negative")


def test_another_scale_is_another_negative():
    (one,) = replay(A, policy(guidance={"scale": 9}), record([seen(0.9)])).differing
    assert one.step == 0
    assert one.before == "star at 6"
    assert one.after == "star at 9"


def test_an_image_that_only_ends_differently_is_comparable():
    after = policy(categories=[star(still_present="blur"), bolt()])
    result = replay(A, after, record([], final=[seen(0.9)]))
    (one,) = result.differing
    assert result.comparable == 1
    assert one.step is None
    assert one.before == "blocked"
    assert one.after == "blurred"


def test_terms_of_the_same_name_are_told_apart_by_category():
    of = policy(categories=[star(), bolt(look_for=["a star"], threshold=0.6)])
    result = replay(of, of, record([seen(0.9)], of=of))
    assert result.differing == ()


def test_categories_that_would_find_more_than_the_record_holds_are_named():
    after = policy(categories=[star(threshold=0.4), bolt(), star(id="nova")])
    assert replay(A, after, record([])).unseen == ("star", "nova")


def test_a_missed_look_is_replayed_as_missed():
    result = replay(A, A, [*record([]), *record([], None, request="r2")])
    assert result.images == 2
    assert result.differing == ()


@pytest.mark.parametrize(
    "lines",
    [record([], of=policy(mode="shadow")), record([], finished=False)],
    ids=["another policy", "unfinished"],
)
def test_records_that_cannot_be_replayed_are_counted(lines):
    result = replay(A, A, lines)
    assert result.images == 0
    assert result.left_out == 1


def test_a_sensitive_finding_is_not_replayed():
    of = policy(categories=[star(sensitive=True, action="block", still_present="block"), bolt()])
    result = replay(of, of, record([{"category": "star"}], of=of))
    assert result.images == 0
    assert result.left_out == 1


def test_lines_that_are_no_records_are_passed_over():
    assert replay(A, A, [b"", b"[]", b"{", b'{"event": "query"}', *record([])]).images == 1
