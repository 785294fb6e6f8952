from __future__ import annotations

import pytest

from dnp_guard.policy import allowed_questions, negation, questions, questions_per_look
from dnp_guard.types import Question

TEXT = """\
format: 1
name: example
question:
  template: "${title}: ${term}? (${definition}) $$"
  allowed_template: "Only ${allowed}?"
categories:
  - {id: a, title: A, definition: "costs $5", look_for: [x, y], allowed: [p, q], negative: [a]}
  - {id: b, negative: [b]}
"""


@pytest.fixture
def policy(parse):
    return parse(TEXT)


def test_there_is_one_question_a_term_in_policy_order(policy):
    assert questions(policy) == (
        Question("a", "x", "A: x? (costs $5) $"),
        Question("a", "y", "A: y? (costs $5) $"),
        Question("b", "B", "B: B? (B) $"),
    )


def test_allowed_cases_are_asked_for_one_category(policy):
    assert allowed_questions(policy, "a") == (Question("a", "p", "Only p?"), Question("a", "q", "Only q?"))


def test_a_category_without_allowed_cases_asks_nothing(policy):
    assert allowed_questions(policy, "b") == ()


def test_allowed_cases_of_an_unknown_category_are_a_key_error(policy):
    with pytest.raises(KeyError):
        allowed_questions(policy, "c")


def test_a_negation_keeps_category_and_term_and_asks_for_no(policy):
    first, *_ = questions(policy)
    other = negation(first)
    assert other.category == first.category
    assert other.term == first.term
    assert other.text.endswith(f"answered with no? {first.text}")


def test_paired_questions_count_twice(parse):
    paired = parse(TEXT.replace("question:", "question:\n  paired: true"))
    assert questions_per_look(parse(TEXT)) == 3
    assert questions_per_look(paired) == 6
