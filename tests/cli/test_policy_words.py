import pytest

from dnp_guard.cli.policy_words import pace, strength
from tests.policies import policy


def test_a_policy_that_looks_at_every_step_of_its_list_says_no_more():
    assert pace(policy().queries) == []


@pytest.mark.parametrize(
    ("queries", "said"),
    [
        ({"wait": False}, "goes on while the model answers"),
        ({"skip_similar": 0.9}, "like the last one to 0.9"),
        ({"back_off": {"factor": 4, "below": 0.1}}, "comes to 0.1 of its threshold, the next is due 4 times as late"),
        ({"budget_ms": 500}, "once 500 ms were waited"),
    ],
)
def test_what_makes_looks_fewer_or_later_is_said(queries, said):
    (sentence,) = pace(policy(queries=queries).queries)
    assert said in sentence


@pytest.mark.parametrize(
    ("guidance", "said"),
    [
        ({"strength": "constant"}, "scale 6 throughout"),
        ({"strength": "severity"}, "scale 6 weighed by severity"),
        ({"strength": "controller"}, "scale 6 at most"),
        ({"mode": "replace", "scale": None, "strength": None}, "host's own scale"),
    ],
)
def test_how_hard_negatives_push_is_said(guidance, said):
    assert said in strength(policy(guidance=guidance).guidance)
