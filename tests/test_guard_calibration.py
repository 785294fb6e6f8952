from __future__ import annotations

import pytest

from dnp_guard import Guard
from dnp_guard.audit import MemorySink
from dnp_guard.errors import VlmUnavailable
from dnp_guard.vlm import Either
from tests.policies import bolt, policy, star

MEASURED = {"calibration": {"file": "c.json", "vlm": "m", "vlm_revision": "1"}}


class Backend:
    name = "m"

    def __init__(self, revision):
        self.revision = revision

    def ask(self, images, questions):
        return [[0.0] * len(questions) for _ in images]


def degraded(sink):
    return [record["reason"] for record in sink.records if record["event"] == "degraded"]


def test_the_model_that_was_measured_is_accepted():
    sink = MemorySink()
    Guard(policy(categories=[star(**MEASURED)]), vlm=Backend("1"), audit=sink).close()
    assert degraded(sink) == []


def test_another_revision_is_refused_where_the_policy_enforces():
    with pytest.raises(VlmUnavailable, match=r"'star' were measured on m 1 \(c\.json\), and the backend is m 2"):
        Guard(policy(categories=[star(**MEASURED)]), vlm=Backend("2"))


@pytest.mark.parametrize("where", ["policy", "category"])
def test_another_revision_is_a_warning_in_shadow(where):
    measured = star(**MEASURED, mode="shadow") if where == "category" else star(**MEASURED)
    of = policy(categories=[measured, bolt()], mode="shadow" if where == "policy" else "enforce")
    sink = MemorySink()
    Guard(of, vlm=Backend("2"), audit=sink).close()
    assert degraded(sink) == ["vlm_uncalibrated: 'star' was measured on m 1 (c.json)"]


@pytest.mark.parametrize("revisions", ["12", "21"])
def test_one_measured_model_of_two_is_enough_and_the_record_says_so(revisions):
    sink = MemorySink()
    Guard(policy(categories=[star(**MEASURED)]), vlm=Either(*map(Backend, revisions)), audit=sink).close()
    assert degraded(sink) == ["vlm_uncalibrated: 'star' was measured on m 1 (c.json)"]


def test_two_models_that_were_not_measured_are_refused():
    with pytest.raises(VlmUnavailable, match=r"the backend is m \+ m 2 \+ 3"):
        Guard(policy(categories=[star(**MEASURED)]), vlm=Either(Backend("2"), Backend("3")))


def test_a_call_is_not_tightened_by_thresholds_of_another_model():
    guard = Guard(policy(), vlm=Backend("2"))
    with pytest.raises(VlmUnavailable), guard.tightened(policy(categories=[star(**MEASURED)])):
        pytest.fail("the policy was taken")
    guard.close()
