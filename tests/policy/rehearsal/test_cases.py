from __future__ import annotations

from pathlib import Path

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import load_tests, shipped
from dnp_guard.policy.rehearsal.cases import run_tests
from dnp_guard.policy.rehearsal.coverage import coverage
from dnp_guard.policy.rehearsal.judging import answers, run
from dnp_guard.types import Outcome
from tests.policies import policy, star

POLICY = """\
format: 1
name: p
guidance: {scale: 8, strength: constant, hold: 0}
categories: [{id: star, look_for: [a star, a nova], allowed: [a badge], negative: [star, "${found}"]}]
"""
HEAD = "format: 1\npolicy: ../p.yaml\ncases:\n"


def never(spec, path):
    raise AssertionError("no image is given")


@pytest.fixture
def write(tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY)
    (tmp_path / "tests").mkdir()

    def write(cases, head=HEAD):
        path = tmp_path / "tests" / "p.test.yaml"
        path.write_text(head + cases)
        return path

    return write


@pytest.fixture
def ran(write):
    return lambda cases: run_tests(load_tests(write(cases)), never)


@pytest.fixture
def problem(write):
    def problem(cases, head=HEAD):
        with pytest.raises(PolicyError) as caught:
            load_tests(write(cases, head))
        (one,) = caught.value.problems
        return one.line, one.column, one.code, one.hint

    return problem


def test_a_case_that_comes_as_expected_passes(ran):
    (one,) = ran(
        "  - {name: a, looks: [{a nova: 0.5}, {a nova: 0.49}],"
        " expect: {decision: steered, negatives: [[star, a nova], []], scale: 8, action: none}}"
    )
    assert one.passed


def test_a_case_that_does_not_says_what_was_expected_and_got(ran):
    (one,) = ran("  - {name: a, looks: [{a star: 0.9}], expect: {decision: clean, negatives: [[star]], scale: 3}}")
    assert [str(difference) for difference in one.differences] == [
        "decision: expected clean, got steered",
        "negatives: expected [[star]], got [[star, a star]]",
        "scale: expected 3.0, got 8.0",
    ]


def test_an_allowed_case_in_the_answers_waives_a_finding(ran):
    (one,) = ran("  - {name: a, looks: [{a star: 0.9, a badge: 0.8}], expect: {decision: clean, waived: [star]}}")
    assert one.passed


def test_a_missed_final_look_fails_closed(ran):
    (one,) = ran("  - {name: a, looks: [{}], final: missed, expect: {decision: failed_closed}}")
    assert one.passed


def test_a_case_may_expect_the_action_in_shadow(ran, tmp_path, write):
    write("")
    (tmp_path / "p.yaml").write_text(POLICY + "mode: shadow\n")
    (one,) = ran(
        "  - {name: a, looks: [{a star: 0.9}], final: {a star: 0.9},"
        " expect: {decision: clean, negatives: [[]], would: {negatives: [[star, a star]], action: block}}}"
    )
    assert one.passed


def test_a_term_that_the_policy_does_not_have_is_reported_with_the_nearest(problem):
    problem_found = problem("  - {name: a, looks: [{a stat: 0.9}], expect: {decision: clean}}")
    assert problem_found == (4, 24, "unknown-term", "Did you mean `a star`?")


def test_a_misspelt_key_is_reported_with_the_nearest(problem):
    assert problem("  - {name: a, expect: {descision: clean, decision: clean}}") == (
        4,
        24,
        "unknown-key",
        "Did you mean `decision`?",
    )


def test_a_probability_that_is_none_is_reported(problem):
    assert problem("  - {name: a, looks: [{a star: 2}], expect: {decision: clean}}")[:3] == (4, 23, "wrong-type")


def test_an_image_needs_a_model(problem):
    assert problem("  - {name: a, image: x.png, expect: {decision: clean}}")[:3] == (4, 5, "missing-key")


def test_a_policy_that_is_not_there_is_reported(problem):
    assert problem("  - {name: a, expect: {decision: clean}}", HEAD.replace("/p.", "/q."))[2] == "unreadable"


def test_coverage_names_what_no_case_touches(write):
    tests = load_tests(write("  - {name: a, looks: [{a star: 0.9}], expect: {decision: steered}}"))
    assert coverage(tests.policy, run_tests(tests, never)).missing == (
        "star: nothing under its threshold 0.5",
        "star: nothing at or over 0.5 in the finished image",
        "star: nothing under 0.5 in the finished image",
        "star: no allowed case at or over 0.8",
        "star: no allowed case under 0.8",
    )


@pytest.mark.parametrize("name", [name for name in shipped() if name != "glyphs"])
def test_a_shipped_policy_passes_its_tests_which_touch_all_of_it(name):
    tests = load_tests(Path(shipped()[name]).parent / "tests" / f"{name}.test.yaml")
    ran = run_tests(tests, never)
    assert [(result.case.name, result.differences) for result in ran if not result.passed] == []
    assert coverage(tests.policy, ran).missing == ()


def test_a_policy_without_a_final_look_ends_as_the_last_look_says():
    of = policy(queries={"final": False}, categories=[star(action="block")])
    assert run(of, [answers({"a star": 0.9})], None).outcome is Outcome.BLOCKED
    assert run(of, [answers({"a star": 0.9}), answers({})], None).outcome is Outcome.STEERED


def test_under_open_a_missed_end_lets_the_image_pass():
    assert run(policy(on_failure="open"), [answers({})], None).outcome is Outcome.FAILED_OPEN


EXCEPTION = """\
exceptions:
  - {category: star, tenant: acme, set: {threshold: 0.8}, until: 2027-01-01T00:00:00Z, reason: r, approved_by: a}
"""


def test_an_exception_holds_in_a_case_of_its_time_and_tenant(write, tmp_path):
    (tmp_path / "p.yaml").write_text(POLICY + EXCEPTION)
    seen = "looks: [{a star: 0.7}], final: {a star: 0.7}"
    cases = (
        f"  - {{name: a, {seen}, tenant: acme, at: 2026-12-24T00:00:00Z, expect: {{decision: clean}}}}\n"
        f"  - {{name: b, {seen}, tenant: acme, at: 2027-12-24T00:00:00Z, expect: {{decision: blocked}}}}\n"
        f"  - {{name: c, {seen}, tenant: other, at: 2026-12-24T00:00:00Z, expect: {{decision: blocked}}}}\n"
        f"  - {{name: d, {seen}, expect: {{decision: blocked}}}}\n"
    )
    tests = load_tests(write(cases))
    ran = run_tests(tests, never)
    assert [case.differences for case in ran] == [()] * 4
    missing = [coverage(tests.policy, some).missing for some in (ran, ran[1:])]
    assert [any("its exception until 2027-01-01" in words for words in notes) for notes in missing] == [False, True]
