from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnp_guard.generation.judge import find
from dnp_guard.policy import Policy, questions, strictest
from dnp_guard.policy.compare.change import Direction
from dnp_guard.policy.compare.diff import changes
from dnp_guard.policy.model.thresholds import StepRange, at, falls, lowest
from dnp_guard.policy.rehearsal.judging import answers, run
from dnp_guard.types import Outcome
from tests.policies import policy, star

EARLY_MILD = [{"from": 0, "to": 0.3, "value": 0.9}, {"from": 0.3, "to": 1, "value": 0.4}]


def with_ranges(ranges=EARLY_MILD, **more):
    return policy(categories=[star(threshold=ranges)], **more)


@st.composite
def thresholds(draw):
    cuts = sorted(draw(st.sets(st.floats(0.01, 0.99), max_size=4)))
    return tuple(
        StepRange.model_validate({"from": a, "to": b, "value": draw(st.floats(0, 1))})
        for a, b in zip([0.0, *cuts], [*cuts, 1.0], strict=True)
    )


@pytest.mark.parametrize(
    ("progress", "seen"), [(0.0, 0.9), (0.29, 0.9), (0.3, 0.4), (0.99, 0.4), (1.0, 0.4), (None, 0.4)]
)
def test_the_threshold_is_that_of_the_range_the_step_lies_in(progress, seen):
    of = with_ranges()
    asked = questions(of)
    assert [bool(find(of, asked, [p] * len(asked), progress=progress)[0]) for p in (seen - 0.01, seen)] == [False, True]


def test_a_finding_says_what_it_was_compared_with():
    of = with_ranges()
    findings, _ = find(of, questions(of), [0.95], progress=0.1)
    assert findings[0].threshold == 0.9


def test_the_final_look_has_the_last_range_s_threshold():
    assert with_ranges().category("star").final_threshold == 0.4


def test_a_resolved_policy_reads_back_with_the_same_digest():
    again = Policy.model_validate(with_ranges().resolved())
    assert again == with_ranges()
    assert again.digest == with_ranges().digest
    assert with_ranges().resolved()["categories"][0]["threshold"] == EARLY_MILD


def test_another_range_is_another_digest():
    assert with_ranges().digest != with_ranges([{"from": 0, "to": 1, "value": 0.4}]).digest


@given(thresholds(), thresholds(), st.floats(0, 1))
def test_the_lowest_of_two_is_the_lower_everywhere(one, other, progress):
    merged = tuple(StepRange.model_validate(span) for span in lowest(one, other))
    assert at(merged, progress) == min(at(one, progress), at(other, progress))


@given(thresholds(), thresholds(), st.floats(0, 1))
def test_thresholds_that_fall_nowhere_are_nowhere_lower(one, other, progress):
    assert falls(one, other) or at(other, progress) >= at(one, progress)


def test_the_strictest_of_two_policies_takes_the_lower_of_each_range():
    merged = strictest(with_ranges(), policy(categories=[star(threshold=0.5)]))
    assert [span.value for span in merged.category("star").threshold] == [0.5, 0.4]


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        (0.9, EARLY_MILD, Direction.STRICTER),
        (EARLY_MILD, 0.9, Direction.MILDER),
        (EARLY_MILD, 0.5, Direction.UNCLEAR),
        (0.5, [{"from": 0, "to": 1, "value": 0.5}], Direction.NEITHER),
    ],
)
def test_a_comparison_says_whether_ranges_are_stricter(before, after, direction):
    (change,) = [entry for entry in changes(with_ranges(before), with_ranges(after)) if entry.key == "threshold"]
    assert change.direction is direction


def test_a_test_of_a_policy_goes_through_the_ranges():
    of = with_ranges(queries={"steps": [0.1, 0.5]})
    look = answers({of.category("star").terms[0]: 0.6})
    early, late = (run(of, looks, answers({})) for looks in ([look], [answers({}), look]))
    assert early.outcome == Outcome.CLEAN
    assert late.outcome == Outcome.STEERED
