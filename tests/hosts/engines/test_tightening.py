"""A request to a serving engine can make the policy stricter for itself, and for no other request."""

import pytest

from dnp_guard import Guard, RequestRefused
from dnp_guard.hosts.engines import tightening
from dnp_guard.vlm.scripted import ScriptedBackend
from tests.policies import policy, star

STRICT = policy(name="strict", categories=[star(action="block")])


@pytest.fixture
def guard():
    with Guard(policy(), vlm=ScriptedBackend([{}])) as made:
        yield made


def test_demands_that_no_block_enters_tighten_nothing(guard):
    before = guard.policy.digest
    tightening.tightened(guard, {"strict": STRICT}, {"policy": "strict"})
    assert guard.policy.digest == before


def test_demands_tighten_nothing_after_their_block(guard):
    before = guard.policy.digest
    with tightening.tightened(guard, {"strict": STRICT}, {"policy": "strict"}):
        assert guard.policy.digest != before
    assert guard.policy.digest == before


@pytest.mark.parametrize("arguments", ["{}", ["dnp_guard"], 1])
def test_extra_arguments_in_which_no_demand_could_be_found_refuse_the_request(arguments):
    with pytest.raises(RequestRefused, match="no dictionary"):
        tightening.of(arguments)
