from __future__ import annotations

import pytest

from dnp_guard.policy import load_policy, load_tests, shipped
from dnp_guard.policy.rehearsal.cases import run_tests
from tests.policy.test_fuzz import BOMBS, read


def test_the_default_policy_is_loaded(benchmark):
    assert benchmark(load_policy, "default").name == "default"


def test_a_policy_that_extends_another_is_loaded(benchmark):
    assert benchmark(load_policy, "strict").name == "strict"


def test_the_tests_of_the_default_policy_are_run(benchmark):
    tests = load_tests(shipped()["default"].parent / "tests" / "default.test.yaml")
    assert {ran.passed for ran in benchmark(run_tests, tests, None)} == {True}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_made_to_cost_time_is_refused(benchmark, name):
    assert benchmark.pedantic(read, args=(BOMBS[name],), rounds=3) is None
