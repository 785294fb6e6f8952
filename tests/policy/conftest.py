from __future__ import annotations

import pytest

from dnp_guard.errors import PolicyError
from dnp_guard.policy import parse_policy

HEAD = "format: 1\nname: example\n"
CATEGORY = "categories:\n  - {id: star, negative: [star]}\n"


@pytest.fixture
def minimal():
    return HEAD + CATEGORY


@pytest.fixture
def parse():
    def parse(text):
        return parse_policy(text if isinstance(text, bytes) else text.encode(), "p.yaml")

    return parse


@pytest.fixture
def problems(parse):
    """Return a function that parses a faulty policy text and returns its problems as (line, column, code)."""

    def problems(text):
        with pytest.raises(PolicyError) as caught:
            parse(text)
        return [(problem.line, problem.column, problem.code) for problem in caught.value.problems]

    return problems


@pytest.fixture
def the_problem(parse):
    """Return a function that parses a policy text with a single fault, and returns this problem."""

    def the_problem(text):
        with pytest.raises(PolicyError) as caught:
            parse(text)
        (problem,) = caught.value.problems
        return problem

    return the_problem
