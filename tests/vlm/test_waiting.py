from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.errors import VlmBusy
from dnp_guard.vlm.base import Query
from dnp_guard.vlm.waiting import MOST_IMAGES, MOST_WAITING, FairQueue, Pending


def place(turn, question="q", images=1, **query):
    return Pending(Query(tuple(range(images)), (question,), **query), turn)


def waiting(*places):
    line = FairQueue()
    for place in places:
        line.add(place)
    return line


def served(line, *, share=False):
    """Take calls from a queue until it is empty; return, per call, the turns (such as tenants) of its queries."""
    calls = []
    while line:
        calls.append([item.turn for item in line.take(share=share)])
    return calls


def test_an_empty_line_gives_nothing():
    assert FairQueue().take(share=True) == []


def test_turns_are_served_in_rotation_however_many_one_of_them_asks():
    assert served(waiting(*map(place, "aaaaabbc"))) == [[turn] for turn in "abcabaaa"]


def test_who_comes_late_is_served_after_one_of_each():
    line = waiting(*map(place, "aaaa"))
    line.take(share=False)
    line.add(place("b"))
    assert served(line)[1] == ["b"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("pq")), max_size=30), st.booleans())
def test_nobody_is_passed_over_more_often_than_there_are_others(arrivals, share):
    line = waiting(*(place(turn, question) for turn, question in arrivals))
    others, calls = len({turn for turn, _ in arrivals}) - 1, served(line, share=share)
    for turn in {turn for turn, _ in arrivals}:
        gap = 0
        for number, call in enumerate(calls):
            if not any(turn in later for later in calls[number:]):
                break
            gap = 0 if turn in call else gap + 1
            assert gap <= others
    assert sorted(turn for call in calls for turn in call) == sorted(turn for turn, _ in arrivals)


def test_those_who_ask_the_same_come_along_whoever_they_are():
    line = waiting(place("a", "p"), place("a", "q"), place("b", "p"), place("c", "q"), place("a", "p"))
    assert served(line, share=True) == [["a", "b", "a"], ["c", "a"]]


@pytest.mark.parametrize("other", [{"final": True}, {"loosening": frozenset({0})}])
def test_who_asks_the_same_of_another_kind_does_not_come_along(other):
    assert served(waiting(place("a"), place("b", **other)), share=True) == [["a"], ["b"]]


def test_the_room_in_a_shared_call_goes_round():
    line = waiting(*(place("a") for _ in range(MOST_IMAGES + 5)), place("b"))
    assert "b" in {item.turn for item in line.take(share=True)}


def test_a_shared_call_takes_so_many_images_and_no_more():
    line = waiting(place("a", images=MOST_IMAGES - 1), place("b", images=2), place("c"))
    assert [item.turn for item in line.take(share=True)] == ["a", "c"]


def test_a_query_of_too_many_images_is_asked_alone():
    assert served(waiting(place("a", images=MOST_IMAGES * 2), place("b")), share=True) == [["a"], ["b"]]


def test_one_turn_cannot_fill_the_line_for_another():
    line = waiting(*(place("greedy") for _ in range(MOST_WAITING)))
    with pytest.raises(VlmBusy, match=f"{MOST_WAITING} queries wait"):
        line.add(place("greedy"))
    line.add(place("modest"))
    assert len(line) == MOST_WAITING + 1


def test_who_is_taken_back_is_never_served():
    line = waiting(first := place("a"), second := place("a"))
    assert line.remove(first)
    assert line.take(share=False) == [second]
    assert not line.remove(second)
