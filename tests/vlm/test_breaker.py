from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.vlm.remote.breaker import Breaker


def failing(count: int, now: float = 0.0) -> Breaker:
    breaker = Breaker(threshold=3, pause=2, longest=10)
    for _ in range(count):
        breaker = breaker.failed(now)
    return breaker


def test_it_stays_closed_until_enough_failures_in_a_row():
    assert [failing(count).state(0) for count in range(4)] == ["closed", "closed", "closed", "open"]


def test_an_answer_forgets_the_failures_before_it():
    assert failing(2).succeeded().failed(0).state(0) == "closed"


def test_it_is_half_open_when_its_pause_is_over():
    assert [failing(3).state(now) for now in (0, 1.9, 2)] == ["open", "open", "half-open"]


def test_half_open_it_lets_one_probe_through():
    breaker = failing(3)
    assert breaker.admits(2)
    assert not breaker.begun(2).admits(2)


def test_a_probe_that_never_came_back_is_not_waited_for_without_end():
    assert failing(3).begun(2).admits(12)


def test_a_probe_that_was_called_off_leaves_room_for_another():
    assert failing(3).begun(2).released().admits(2)


def test_a_probe_that_succeeds_closes_it():
    assert failing(3).begun(2).succeeded().state(2) == "closed"


def test_a_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit():
    breaker, now, pauses = failing(3), 0.0, []
    for _ in range(5):
        pauses.append(breaker.retry_at - now)
        now = breaker.retry_at
        breaker = breaker.begun(now).failed(now)
    assert pauses == [2, 4, 8, 10, 10]


def test_calls_side_by_side_that_fail_together_are_one_failure():
    breaker = Breaker(threshold=3)
    for _ in range(8):
        breaker = breaker.failed(5, began=4)
    assert breaker.failures == 1


def test_an_endpoint_that_asks_for_a_pause_gets_it_at_once():
    breaker = Breaker().failed(0, wait=4)
    assert [breaker.state(now) for now in (3.9, 4)] == ["open", "half-open"]


@given(st.lists(st.sampled_from(["fail", "succeed", "release", "begin"]), max_size=40))
def test_it_never_shuts_an_endpoint_out_for_good(events):
    breaker, now = Breaker(), 0.0
    for event in events:
        now += 0.5
        match event:
            case "fail":
                breaker = breaker.failed(now)
            case "succeed":
                breaker = breaker.succeeded()
            case "release":
                breaker = breaker.released()
            case "begin":
                breaker = breaker.begun(now)
    assert breaker.admits(now + breaker.longest)
