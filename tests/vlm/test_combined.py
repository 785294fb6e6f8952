from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from threading import Barrier, Event

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmError, VlmTimeout, VlmUnavailable
from dnp_guard.generation.state import Request
from dnp_guard.types import Outcome
from dnp_guard.vlm import Query, ScriptedBackend
from dnp_guard.vlm.combined import AtFinal, Either, composed, strictest
from dnp_guard.vlm.desk import Desk
from tests.policies import policy, star

PICTURE = Image.new("RGB", (8, 8))

probability = st.floats(0, 1)


def finished(guard):
    return guard.start(Request(1, {"name": "test"})).final(lambda: [PICTURE])


@given(st.lists(st.tuples(probability, probability), min_size=1), st.sets(st.integers(0, 5)))
def test_a_second_opinion_only_tightens(pairs, loosening):
    first, second = zip(*pairs, strict=True)
    (row,) = strictest((first,), (second,), loosening)
    for k, value in enumerate(row):
        assert value <= first[k] if k in loosening else value >= first[k]


def test_what_either_sees_is_seen():
    either = Either(ScriptedBackend({"star": 0.1, "bolt": 0.7}), ScriptedBackend({"star": 0.9}))
    assert either.ask([PICTURE], ["a star?", "a bolt?"]) == ((0.9, 0.7),)


def test_of_what_makes_a_verdict_milder_the_lower_answer_is_taken():
    either = Either(ScriptedBackend({"star": 0.1, "bolt": 0.7}), ScriptedBackend({"star": 0.9}))
    answers = Desk(either).ask([PICTURE], ["a star?", "a bolt?"], loosening=[1])
    assert answers.probabilities == ((0.9, 0.0),)


def test_both_are_asked_at_the_same_time():
    meeting = Barrier(2)
    met = ScriptedBackend(lambda images, questions: [[float(meeting.wait(30) >= 0)] for _ in images])
    assert Either(met, met).ask([PICTURE], ["a star?"]) == ((1.0,),)


@pytest.mark.parametrize("failing", [0, 1])
def test_one_that_fails_leaves_the_question_unanswered(failing):
    backends = [ScriptedBackend({"star": 0.1}), ScriptedBackend([{"error": "timeout"}])]
    with pytest.raises(VlmTimeout):
        Either(*(backends if failing else backends[::-1])).ask([PICTURE], ["a star?"])


def test_a_call_is_not_over_while_one_of_them_still_answers():
    release, returned = Event(), Event()

    def slowly(images, questions):
        assert release.wait(30)
        returned.set()
        return [[0.0] for _ in images]

    either = Either(ScriptedBackend([{"error": "timeout"}]), ScriptedBackend(slowly))
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(either.ask, [PICTURE], ["a star?"])
        assert wait([asked], 0.05).not_done
        release.set()
        with pytest.raises(VlmTimeout):
            asked.result(30)
    assert returned.is_set()


def test_a_deadline_holds_for_both():
    release = Event()
    slow = ScriptedBackend(lambda images, questions: [[0.0] for _ in images if release.wait(30)])
    desk = Desk(Either(ScriptedBackend({}), slow))
    with pytest.raises(VlmError):
        desk.ask([PICTURE], ["a star?"], deadline_ms=20)
    release.set()
    desk.close()


def test_a_larger_judge_answers_for_finished_images_only():
    desk = Desk(AtFinal(ScriptedBackend({"star": 0.9}), otherwise=ScriptedBackend({"star": 0.1})))
    seen = [desk.ask([PICTURE], ["a star?"], final=final).probabilities for final in (False, True)]
    assert seen == [((0.1,),), ((0.9,),)]


def test_a_guard_asks_the_larger_judge_about_the_finished_image():
    of = policy(queries={"steps": [0.0]}, categories=[star(still_present="block")])
    with Guard(of, vlm=AtFinal(ScriptedBackend({"star": 0.9}), otherwise=ScriptedBackend({}))) as guard:
        assert finished(guard) == (Outcome.BLOCKED,)


class Remote(ScriptedBackend):
    name, revision, local, addresses, batches, at_once = "far", "7", False, ("https://far.example/v1",), True, 8

    def __init__(self):
        super().__init__({})
        self.revision, self.open = "7", True

    def states(self):
        return {self.addresses[0]: "open" if self.open else "closed"}

    def close(self):
        self.open = False


@pytest.mark.parametrize("made", [Either, lambda one, other: AtFinal(other, otherwise=one)], ids=["either", "at final"])
def test_two_are_as_local_and_take_as_much_as_the_lesser(made):
    near = ScriptedBackend({})
    pair = made(near, Remote())
    assert not pair.local
    assert pair.addresses == Remote.addresses
    assert not pair.batches
    assert pair.at_once == 1
    assert pair.members[0] is near
    assert made(ScriptedBackend({}), near).local


def test_two_are_named_after_both():
    either = Either(ScriptedBackend(lambda *_: []), Remote())
    assert either.info.name == "scripted + far"
    assert either.info.revision == "unknown + 7"
    assert AtFinal(Remote(), otherwise=either).info.name == "scripted + far, finally far"


def test_closing_two_closes_each():
    far = Remote()
    Either(ScriptedBackend({}), far).close()
    assert not far.open


def test_specs_are_built(tmp_path):
    for name, p in (("small", 0.1), ("second", 0.5), ("large", 0.9)):
        (tmp_path / name).write_text(f"star: {p}")
    small, second, large = (f"scripted:{tmp_path / name}" for name in ("small", "second", "large"))
    seen = [
        [composed(small, *more).put(Query((PICTURE,), ("a star?",), final=final)) for final in (False, True)]
        for more in ((), (second,), (None, large), (second, large))
    ]
    assert [[float(rows[0][0]) for rows in both] for both in seen] == [[0.1, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.9]]


def test_what_was_built_is_closed_where_the_other_cannot_be(monkeypatch):
    far = Remote()
    monkeypatch.setattr("dnp_guard.vlm.combined.build", lambda spec: far)
    with pytest.raises(VlmUnavailable, match="has no ask"):
        Either("far", object())
    assert not far.open


def test_a_guard_acts_on_what_the_second_sees_and_records_both():
    sink = MemorySink()
    of = policy(categories=[star(still_present="block")])
    blind = ScriptedBackend({})
    guard = Guard(of, vlm=Either(blind, ScriptedBackend({"star": 0.9})), audit=sink)
    assert finished(guard) == (Outcome.BLOCKED,)
    assert sink.records[0]["vlm"]["name"] == "scripted + scripted"
    guard.close()


def test_an_excuse_must_convince_both():
    excusing = policy(categories=[star(still_present="block", allowed=["a starfish"])])
    sees, excuses = {"star": 0.9, "starfish": 0.1}, {"star": 0.9, "starfish": 0.95}
    for pair in ((sees, excuses), (excuses, sees)):
        guard = Guard(excusing, vlm=Either(*map(ScriptedBackend, pair)))
        assert finished(guard) == (Outcome.BLOCKED,)
        guard.close()


@pytest.mark.parametrize("allow", [["local"], ["https://far.example/v1"]])
@pytest.mark.parametrize("made", [Either, lambda one, other: AtFinal(other, otherwise=one)], ids=["either", "at final"])
def test_a_policy_has_to_allow_both(made, allow):
    both = made(ScriptedBackend({}), Remote())
    with pytest.raises(VlmUnavailable, match="does not allow"):
        Guard(policy(vlm={"allow": allow}), vlm=both)
    Guard(policy(vlm={"allow": ["local", *Remote.addresses]}), vlm=both).close()


def test_two_of_which_one_is_remote_are_not_asked_about_what_is_sensitive():
    sensitive = policy(categories=[star(sensitive=True)])
    with pytest.raises(VlmUnavailable, match="sensitive"):
        Guard(sensitive, vlm=AtFinal(Remote(), otherwise=ScriptedBackend({})))
    Guard(sensitive, vlm=AtFinal(ScriptedBackend({}), otherwise=ScriptedBackend({}))).close()
