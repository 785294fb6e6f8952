from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.types import Outcome
from dnp_guard.vlm import ScriptedBackend
from dnp_guard.vlm.deadline import remaining
from dnp_guard.vlm.opinions import Opinions, strictest
from tests.policies import policy, star
from tests.sampler import PICTURE, finish, start

probability = st.floats(0, 1)


def finished(guard):
    return finish(start(guard))


@given(st.lists(st.tuples(probability, probability), min_size=1), st.sets(st.integers(0, 5)))
def test_a_second_opinion_only_tightens(pairs, loosening):
    first, second = zip(*pairs, strict=True)
    (row,) = strictest((first,), (second,), loosening)
    for k, value in enumerate(row):
        assert value <= first[k] if k in loosening else value >= first[k]


def test_what_either_sees_is_seen():
    opinions = Opinions(ScriptedBackend({"star": 0.1, "bolt": 0.7}), ScriptedBackend({"star": 0.9}))
    assert opinions.ask([PICTURE], ["a star?", "a bolt?"]).probabilities == ((0.9, 0.7),)
    opinions.close()


def test_without_a_second_one_the_first_answers():
    assert Opinions(ScriptedBackend({"star": 0.1})).ask([PICTURE], ["a star?"]).probabilities == ((0.1,),)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_opinion_that_fails_leaves_the_question_unanswered(failing):
    backends = [ScriptedBackend({"star": 0.1}), ScriptedBackend([{"error": "timeout"}])]
    opinions = Opinions(*(backends if failing else backends[::-1]))
    with pytest.raises(VlmTimeout):
        opinions.ask([PICTURE], ["a star?"])
    opinions.close()


def test_a_deadline_holds_for_both():
    from threading import Event

    release = Event()
    slow = ScriptedBackend(lambda images, questions: [[0.0] for _ in images if release.wait(30)])
    opinions = Opinions(ScriptedBackend({}), slow, deadline_ms=20)
    with pytest.raises(VlmError):
        opinions.ask([PICTURE], ["a star?"])
    release.set()
    opinions.close()


def test_what_the_second_waits_behind_another_question_counts_towards_its_deadline(monkeypatch):
    clock = iter((0.0, 40.0))  # 40 of its 60 seconds go by before it is its turn
    monkeypatch.setattr("dnp_guard.vlm.opinions.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    left = []
    second = ScriptedBackend(lambda images, questions: left.append(remaining(1e9)) or [[0.0] for _ in images])
    opinions = Opinions(ScriptedBackend({}), second, deadline_ms=60_000)
    opinions.ask([PICTURE], ["a star?"])
    opinions.close()
    assert 0 < left[0] <= 20


def test_a_guard_acts_on_what_the_second_sees_and_records_both():
    sink = MemorySink()
    of = policy(categories=[star(still_present="block")])
    blind = ScriptedBackend({})
    guard = Guard(of, vlm=blind, second_opinion=ScriptedBackend({"star": 0.9}), audit=sink)
    assert finished(guard) == (Outcome.BLOCKED,)
    assert sink.records[0]["vlm"]["name"] == "scripted + scripted"
    guard.close()


def test_an_excuse_must_convince_both():
    excusing = policy(categories=[star(still_present="block", allowed=["a starfish"])])
    sees, excuses = {"star": 0.9, "starfish": 0.1}, {"star": 0.9, "starfish": 0.95}
    for pair in ((sees, excuses), (excuses, sees)):
        guard = Guard(excusing, vlm=ScriptedBackend(pair[0]), second_opinion=ScriptedBackend(pair[1]))
        assert finished(guard) == (Outcome.BLOCKED,)
        guard.close()


def test_a_policy_restricts_the_second_as_the_first():
    remote = ScriptedBackend({})
    remote.local = False
    with pytest.raises(VlmUnavailable, match="does not allow"):
        Guard(policy(vlm={"allow": ["local"]}), vlm=ScriptedBackend({}), second_opinion=remote)
