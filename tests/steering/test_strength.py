from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.generation.judge import History, find, judge
from dnp_guard.policy import questions
from dnp_guard.steering.strength import DEADBAND, gone, late, seen
from tests.policies import bolt, policy, star

PROBABILITY = st.floats(0.5, 1)
PART = st.none() | st.floats(0, 1)


def controlled(**guidance):
    return policy(guidance={"strength": "controller", "hold": 3, **guidance}, categories=[star(), bolt()])


def course(of, *looks, progress=0.2):
    """Return the negative's scale after every look, given the probabilities of a star; None without a negative."""
    history, scales = History(), []
    for probability in looks:
        asked = questions(of)
        row = [probability if question.category == "star" else 0.0 for question in asked]
        findings, probabilities = find(of, asked, row)
        decision, history = judge(of, history, findings, probabilities, progress=progress)
        scales.append(decision.negative.scale if decision.negative else None)
    return scales


def test_a_surer_look_pushes_harder():
    (unsure,), (sure,) = course(controlled(), 0.5), course(controlled(), 1.0)
    assert unsure < sure


def test_a_more_severe_category_is_pushed_harder_at_first():
    mild = policy(guidance={"strength": "controller"}, categories=[star(severity="low"), bolt()])
    assert course(mild, 0.9)[0] < course(controlled(), 0.9)[0]


def test_the_push_rises_to_the_full_scale_while_what_it_is_for_does_not_fade():
    scales = course(controlled(), *[0.9] * 6)
    assert scales == sorted(scales)
    assert scales[0] < scales[-1] == 6


def test_the_push_stays_as_it_is_while_what_it_is_for_fades():
    first, second = course(controlled(), 0.9, 0.7)
    assert first == second


def test_the_push_eases_while_a_category_that_is_gone_is_held():
    scales = course(controlled(), 0.9, 0.0, 0.0)
    assert scales == sorted(scales, reverse=True)
    assert scales[-1] < scales[0]


def test_a_finding_that_returns_is_pushed_harder_than_before():
    first, _, again = course(controlled(), 0.9, 0.0, 0.6)
    assert again > first


def test_a_late_push_is_weaker_than_an_early_one():
    assert course(controlled(), 0.9, progress=0.95)[0] < course(controlled(), 0.9, progress=0.1)[0]


def test_a_probability_as_the_record_rounds_it_gives_the_same_push():
    assert seen(None, 0.87654321, 0.5, 0.5, 0.3) == seen(None, 0.876543, 0.5, 0.5, 0.3)


@given(st.lists(st.none() | PROBABILITY, max_size=12), st.floats(0.25, 1), PART)
def test_the_share_is_within_bounds_and_moves_by_no_less_than_the_dead_band(looks, weight, progress):
    push, shares = None, []
    for probability in looks:
        if probability is not None:
            push = seen(push, probability, 0.5, weight, progress)
        elif push is not None:
            push = gone(push, progress)
        shares += [push.share] if push is not None else []
    assert all(0 <= share <= 1 for share in shares)
    moves = pairwise(shares)
    assert all(after in {before, 1.0} or abs(after - before) >= DEADBAND for before, after in moves)


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_weight_of_a_step_never_grows(one, other):
    assert late(min(one, other)) >= late(max(one, other))


@pytest.mark.parametrize("strength", ["constant", "severity"])
def test_only_the_controller_depends_on_the_looks(strength):
    assert len(set(course(controlled(strength=strength), 0.5, 0.99, 0.7))) == 1
