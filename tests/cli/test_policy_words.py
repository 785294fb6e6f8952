import pytest

from dnp_guard.cli.policy_words import does, guidance, inputs, pace
from tests.policies import policy, star


def test_a_policy_that_looks_at_every_step_of_its_list_says_no_more():
    assert pace(policy().queries) == []


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ({"wait": False}, "continues while the model answers"),
        ({"skip_similar": 0.9}, "similarity of 0.9 to the last one"),
        (
            {"back_off": {"factor": 4, "below": 0.1}},
            "reaches 0.1 of its threshold, the next is due 4 times as far into the run",
        ),
        ({"budget_ms": 500}, "after a total wait of 500 ms for answers"),
        ({"skip_probe": {"max_miss": 0.01}}, "may miss 0.01"),
    ],
)
def test_what_makes_looks_fewer_or_later_is_said(queries, expected):
    (sentence,) = pace(policy(queries=queries).queries)
    assert expected in sentence


def test_what_becomes_of_a_requests_own_pictures_is_said():
    assert inputs(policy()) == "not queried"
    assert inputs(policy(categories=[star(more_than_input=0.2)])) == "queried before the first step"
    assert "is refused" in inputs(policy(inputs={"query": True, "action": "block"}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"strength": "constant"}, "scale 6 throughout"),
        ({"strength": "severity"}, "scale 6 weighted by severity"),
        ({"strength": "controller"}, "scale 6 at most"),
        ({"mode": "replace", "scale": None, "strength": None}, "host's own scale"),
        ({"mask": 0.25}, "only in the 25% of the picture"),
        ({"reuse": 2}, "evaluated at every 2nd step"),
        ({"batched": True}, "in the host's own batch"),
        ({"mode": "attention", "scale": None}, "α 0.25 throughout"),
        (
            {"mode": "attention", "escalate": 1},
            "scale 6 after 1 more query still found the category or when several categories are in force, throughout",
        ),
        ({"mode": "attention", "escalate": 2}, "after 2 more queries still found the category"),
        ({"mode": "auto", "escalate": 1}, "are in force, or scale 6 where that is impossible, throughout"),
    ],
)
def test_how_negatives_push_is_said(changes, expected):
    assert any(expected in sentence for sentence in guidance(policy(guidance=changes).guidance))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "steered away from; withheld if the finished image shows it"),
        ({"action": "blur", "still_present": "monitor"}, "steered away from meanwhile, and blurred; blurred if"),
        (
            {"mode": "shadow", "still_present": "blur"},
            "would be steered away from; would be blurred if the finished image shows it; in shadow, so no image",
        ),
    ],
)
def test_what_becomes_of_an_image_is_said_in_shadow_as_what_would(changes, expected):
    of = policy(categories=[star(**changes)])
    assert does(of, of.category("star")).startswith(expected)
