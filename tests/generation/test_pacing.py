from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.generation.pacing import (
    TICKS,
    Pace,
    after,
    due_by_category,
    due_levels,
    due_steps,
    is_due,
    nearest,
    place,
    spent,
    tick,
    waited,
)
from dnp_guard.types import Step
from tests.policies import bolt, policy, star

PAPER = (5, 6, 7, 9, 12, 16, 21, 27, 34, 42)


def test_the_papers_list_of_fifty_is_kept_in_a_run_of_fifty():
    assert due_steps(PAPER, 50, 50) == PAPER


def test_fractions_round_half_up():
    assert due_steps([0.1, 0.25], None, 10) == (1, 3)


def test_steps_beyond_the_run_are_clipped_and_not_repeated():
    assert due_steps([0.8, 0.9, 1.0], None, 4) == (3,)


def test_a_noise_level_is_looked_at_by_the_first_step_that_is_no_noisier():
    assert due_levels([0.9, 0.5], 4, [1.0, 0.95, 0.5, 0.2]) == (2,)


def test_a_level_under_every_step_brings_no_look():
    assert due_levels([0.9, 0.05], 4, [1.0, 0.8, 0.5, 0.2]) == (1,)


def test_noise_that_nobody_tells_is_taken_to_fall_evenly():
    assert due_levels([0.9, 0.5], 10) == (1, 5)


def test_the_last_step_is_left_to_the_final_look_where_noise_says_when():
    for final, looks in ((True, (0,)), (False, (0, 1))):
        of = policy(queries={"steps": [], "sigmas": [1, 0.5], "final": final})
        assert due_by_category(of, 2)["star"] == looks


def test_noise_levels_are_looked_at_beside_the_steps():
    of = policy(queries={"steps": [0.75], "sigmas": [0.9]})
    assert due_by_category(of, 4, [1.0, 0.9, 0.5, 0.2])["star"] == (1, 3)


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


def backing_off(**queries):
    return policy(queries={"steps": [0.1, 0.2, 0.4, 0.8], "back_off": {"factor": 3, "below": 0.2}, **queries}).queries


def test_after_a_quiet_look_the_next_is_due_when_the_run_has_come_three_times_as_far():
    assert after(backing_off(), Pace(), 2, near=0.1).until == 8


def test_a_look_that_comes_near_a_threshold_brings_every_step_back():
    quiet = after(backing_off(), Pace(), 2, near=0.1)
    assert after(backing_off(), quiet, 8, near=0.3).until == 0


def test_while_an_image_is_steered_looks_are_put_off_by_a_factor_of_their_own():
    queries = backing_off(back_off={"factor": 3, "below": 0.2, "steered": 2})
    assert after(queries, Pace(), 2, 1.0, steered=True).until == 5


def test_a_steered_image_is_looked_at_every_step_where_the_policy_says_nothing_of_it():
    assert after(backing_off(), Pace(until=9), 2, 1.0, steered=True).until == 0


def test_without_back_off_every_step_stays():
    assert after(policy().queries, Pace(), 2, near=0.0).until == 0


def test_a_look_at_nothing_but_sensitive_categories_leaves_the_pace():
    quiet = after(backing_off(), Pace(), 2, near=0.1)
    assert after(backing_off(), quiet, 4, near=None).until == quiet.until


def test_the_limit_on_waiting_is_told_by_name():
    limited = backing_off(budget_ms=100)
    once = waited(after(limited, Pace(), 1, near=0.5), 60)
    assert spent(limited, once) is None
    assert spent(limited, waited(once, 40)) == "budget_ms"


def test_how_near_a_look_comes_is_told_of_the_likeliest_category_that_is_not_sensitive():
    of = policy(categories=[star(threshold=0.8), bolt(threshold=0.4), star(id="nova", sensitive=True)])
    assert nearest(of, {"star": 0.2, "bolt": 0.2, "nova": 0.9}, None) == 0.5
    assert nearest(of, {"nova": 0.9}, None) is None


@given(st.lists(st.floats(0, 2), max_size=20), st.floats(1.01, 100))
def test_a_back_off_never_puts_off_past_what_its_factor_says(nears, factor):
    queries, pace = backing_off(back_off={"factor": factor, "below": 0.2}), Pace()
    for step, near in enumerate(nears):
        pace = after(queries, pace, step, near)
        assert pace.until <= (step + 1) * factor - 1


def test_a_run_of_unknown_length_is_placed_by_its_progress():
    assert place(Step(7, None, None, None, progress=0.25)) == (250, TICKS)
    assert place(Step(7, 25, None, None, progress=0.25)) == (7, 25)
    assert place(Step(7, None, None, None)) == (7, None)


@given(st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted))
def test_a_look_is_due_once_its_part_of_the_run_is_done(parts):
    fraction, progress = parts
    assert is_due(due_steps([fraction], None, TICKS), tick(progress), -1)
