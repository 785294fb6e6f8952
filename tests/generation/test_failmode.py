import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.generation.failmode import resolve
from dnp_guard.types import Outcome

outcomes = st.sampled_from(list(Outcome)).filter(lambda o: not o.startswith("failed"))
modes = st.sampled_from(["closed", "open", "last"])


@given(modes, outcomes, st.booleans())
def test_without_a_miss_the_outcome_stands(mode, outcome, answered):
    assert resolve(mode, outcome, missed=False, answered=answered) is outcome


@given(outcomes, st.booleans())
def test_closed_withholds(outcome, answered):
    assert resolve("closed", outcome, missed=True, answered=answered) is Outcome.FAILED_CLOSED


@given(modes, outcomes, st.booleans())
def test_a_failure_the_request_caused_is_always_closed(mode, outcome, answered):
    resolved = resolve(mode, outcome, missed=True, answered=answered, request_caused=True)
    assert resolved is Outcome.FAILED_CLOSED


@pytest.mark.parametrize("outcome", [Outcome.CLEAN, Outcome.MONITORED, Outcome.STEERED])
def test_open_passes_and_says_so(outcome):
    assert resolve("open", outcome, missed=True, answered=True) is Outcome.FAILED_OPEN


@pytest.mark.parametrize("outcome", [Outcome.BLURRED, Outcome.BLOCKED])
def test_open_does_not_loosen_what_was_decided(outcome):
    assert resolve("open", outcome, missed=True, answered=True) is outcome


@given(outcomes)
def test_last_keeps_the_last_decision(outcome):
    assert resolve("last", outcome, missed=True, answered=True) is outcome


def test_last_without_any_answer_is_closed():
    assert resolve("last", Outcome.CLEAN, missed=True, answered=False) is Outcome.FAILED_CLOSED
