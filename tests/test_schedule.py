from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.schedule import due_by_category, due_steps, is_due
from tests.policies import bolt, policy, star

PAPER = (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)


def test_the_papers_list_of_fifty_is_kept_in_a_run_of_fifty():
    assert due_steps(PAPER, 50, 50) == PAPER


def test_fractions_round_half_up():
    assert due_steps([0.1, 0.25], None, 10) == (1, 3)


def test_steps_beyond_the_run_are_clipped_and_not_repeated():
    assert due_steps([0.8, 0.9, 1.0], None, 4) == (3,)


@given(st.lists(st.floats(0, 1), max_size=12), st.integers(1, 200))
def test_due_steps_are_ascending_and_inside_the_run(fractions, total):
    steps = due_steps(fractions, None, total)
    assert list(steps) == sorted(set(steps))
    assert all(0 <= step < total for step in steps)
    assert bool(steps) == bool(fractions)


def test_a_step_is_due_once_answered_no_more():
    assert is_due((2, 5), 2, answered=-1)
    assert not is_due((2, 5), 3, answered=2)
    assert is_due((2, 5), 5, answered=2)


def test_an_unanswered_step_stays_due_at_the_next():
    assert is_due((2, 5), 3, answered=-1)


def test_nothing_is_due_before_the_first_step():
    assert not is_due((2, 5), 1, answered=-1)


def test_a_category_with_steps_of_its_own_is_looked_for_at_those():
    of = policy(categories=[star(queries={"of": 50, "steps": [5, 25]}), bolt()])
    assert due_by_category(of, 10) == {"star": (1, 5), "bolt": (2, 4, 6, 8)}
