"""The questions to the vision-language model: the policy's own text, never the user's prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy.model.placeholders import render
from dnp_guard.types import Question

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dnp_guard.policy.model.policy import Policy


def questions(policy: Policy) -> tuple[Question, ...]:
    """Return the questions of one query about one image, in policy order.

    There is one per ``look_for`` term of a category, or one about its title if it has no terms.
    """
    template = policy.question.template
    return tuple(
        Question(category.id, term, render(template, title=category.title, definition=category.definition, term=term))
        for category in policy.categories
        for term in category.terms
    )


def allowed_questions(policy: Policy, category_id: str, terms: Iterable[str] | None = None) -> tuple[Question, ...]:
    """Return the questions about the cases that excuse a finding of one category; they are asked only after a finding.

    Args:
        policy: the policy in force.
        category_id: id of the category.
        terms: the terms that were found; None for every term.

    Raises:
        KeyError: the policy has no such category.
    """
    category = policy.category(category_id)
    matching = category.terms if terms is None else terms
    return tuple(
        Question(category_id, case, render(policy.question.allowed_template, allowed=case))
        for case in dict.fromkeys(case for term in matching for case in category.excuses(term))
    )


def every_question(policy: Policy) -> tuple[Question, ...]:
    """Return every question that a policy may ask: about terms, about excuses, and negations if it asks in pairs."""
    asked = questions(policy)
    excuses = tuple(case for category in policy.categories for case in allowed_questions(policy, category.id))
    pairs = tuple(negation(question) for question in asked) if policy.question.paired else ()
    return asked + excuses + pairs


def negation(question: Question) -> Question:
    """Return the negation of a question, for ``paired``: a "yes" to it is a "no" to the question."""
    return Question(
        question.category,
        question.term,
        f"Is the following question about this image answered with no? {question.text}",
    )


def questions_per_image(policy: Policy) -> int:
    """Return the largest number of questions about one image in a whole generation, if nothing is found in it."""
    common = len(policy.queries.steps) + len(policy.queries.sigmas or ())
    count = sum(
        len(category.terms)
        * ((len(category.queries.steps) if category.queries else common) + policy.queries.final_pictures)
        for category in policy.categories
    )
    return count * (2 if policy.question.paired else 1)


def questions_per_look(policy: Policy) -> int:
    """Return the number of questions in one query about one image, if nothing is found."""
    return len(questions(policy)) * (2 if policy.question.paired else 1)
