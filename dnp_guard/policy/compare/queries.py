"""Describe how two policies differ in their queries, of the image in progress and of input pictures. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.policy.compare.change import Change, Direction, changed, turn
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dnp_guard.policy.model.category import Category
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.policy.model.sections import CategoryQueries, Queries


def steps(subject: str, was: Queries | CategoryQueries, now: Queries | CategoryQueries) -> Iterator[Change]:
    """Yield the change of the query steps, if there is one; ``subject`` is a category id, or empty for the policy."""
    old, new = (
        frozenset(step / queries.of if queries.of else step for step in queries.steps) for queries in (was, now)
    )
    if old == new:
        return
    more = len(new) - len(old)
    count = f"{abs(more)} {'more' if more > 0 else 'fewer'} queries during denoising" if more else "other queries"
    direction = Direction.STRICTER if new > old else Direction.MILDER if new < old else Direction.UNCLEAR
    if direction is Direction.UNCLEAR and more:
        count += ", at other steps"
    yield Change(subject, "queries.steps", count, direction)


def queries(before: Policy, after: Policy) -> Iterator[Change]:
    """Yield the changes in when a policy queries the model, how long it waits for answers, and how it asks."""
    was, now = before.queries, after.queries
    yield from steps("", was, now)
    yield from _levels(was, now)
    if was.skip_similar != now.skip_similar:
        similar = [2.0 if similarity is None else similarity for similarity in (was.skip_similar, now.skip_similar)]
        then = "fewer queries are skipped" if similar[1] > similar[0] else "more queries are skipped"
        yield changed("", "queries.skip_similar", was.skip_similar, now.skip_similar, then, turn(*similar))
    if was.deadline_ms != now.deadline_ms:
        waits = [float("inf") if deadline is None else deadline for deadline in (was.deadline_ms, now.deadline_ms)]
        then = "a step waits longer for an answer" if waits[1] > waits[0] else "more queries may be missed"
        yield changed("", "queries.deadline_ms", was.deadline_ms, now.deadline_ms, then, Direction.NEITHER)
    if was.max_questions != now.max_questions:
        then = "larger requests are refused" if now.max_questions < was.max_questions else "larger requests are allowed"
        direction = Direction.STRICTER if now.max_questions < was.max_questions else Direction.NEITHER
        yield changed("", "queries.max_questions", was.max_questions, now.max_questions, then, direction)
    yield from _rarer(was, now)
    if before.question.paired != after.question.paired:
        then = (
            "every question is also asked the other way round" if after.question.paired else "questions are asked once"
        )
        yield Change("", "question.paired", then, turn(before.question.paired, after.question.paired))
    if before.question.answer != after.question.answer:
        direction = Direction.MILDER if after.question.answer == "text" else Direction.STRICTER
        then = "a backend that only says yes or no is accepted" if after.question.answer == "text" else ""
        yield changed("", "question.answer", before.question.answer, after.question.answer, then, direction)


def _rarer(was: Queries, now: Queries) -> Iterator[Change]:
    """Yield the changes of the keys that skip or delay queries, such as ``wait``, ``budget_ms`` and ``back_off``."""
    waits = [queries.wait is not False for queries in (was, now)]
    if waits[0] != waits[1]:
        then = "every answer is awaited" if waits[1] else "denoising continues meanwhile, and verdicts steer later"
        yield Change("", "queries.wait", then, turn(*waits))
    if was.budget_ms != now.budget_ms:
        limits = [float("inf") if queries.budget_ms is None else queries.budget_ms for queries in (was, now)]
        then = "more queries may be made" if limits[1] > limits[0] else "fewer queries may be made"
        yield changed("", "queries.budget_ms", was.budget_ms, now.budget_ms, then, turn(*limits))
    if was.back_off != now.back_off:
        old, new = (
            (queries.back_off.factor, queries.back_off.below, queries.back_off.steered or 1.0)
            if queries.back_off
            else (1.0, 0.0, 1.0)
            for queries in (was, now)
        )
        rarer, oftener = (any(a > b for a, b in zip(*pair, strict=True)) for pair in ((new, old), (old, new)))
        direction = Direction.UNCLEAR if rarer and oftener else Direction.MILDER if rarer else Direction.STRICTER
        then = "images that look clean, or are steered, are queried " + ("less" if rarer else "more") + " often"
        yield Change("", "queries.back_off", then, direction)
    if was.skip_probe != now.skip_probe:
        misses = [queries.skip_probe.max_miss if queries.skip_probe else 0.0 for queries in (was, now)]
        then = f"{'more' if misses[1] > misses[0] else 'fewer'} queries that would find something may be skipped"
        direction = turn(-misses[0], -misses[1])
        yield changed("", "queries.skip_probe.max_miss", misses[0], misses[1], then, direction)


def _levels(was: Queries, now: Queries) -> Iterator[Change]:
    old, new = (frozenset(queries.sigmas or ()) for queries in (was, now))
    if old != new:
        more = "more" if len(new) > len(old) else "fewer" if len(new) < len(old) else "other"
        direction = Direction.STRICTER if new > old else Direction.MILDER if new < old else Direction.UNCLEAR
        yield Change("", "queries.sigmas", f"{more} queries by noise level", direction)


def inputs(before: Policy, after: Policy) -> Iterator[Change]:
    """Yield the changes in how a policy treats the pictures that a request contains."""
    asks = [policy.inputs is not None and policy.inputs.query for policy in (before, after)]
    if asks[0] != asks[1]:
        then = f"the pictures that a request contains are {'' if asks[1] else 'no longer '}queried"
        yield Change("", "inputs.query", then, turn(*asks))
    blocks = [policy.inputs is not None and policy.inputs.action is Action.BLOCK for policy in (before, after)]
    if blocks[0] != blocks[1]:
        then = f"a request with a picture that would be blocked {'is refused' if blocks[1] else 'continues'}"
        yield Change("", "inputs.action", then, turn(*blocks))


def over_input(was: Category, now: Category) -> Iterator[Change]:
    """Yield the change of ``more_than_input``: how far a probability must exceed that of the input picture."""
    if was.more_than_input != now.more_than_input:
        rises = [category.more_than_input or 0.0 for category in (was, now)]
        then = "less" if rises[1] < rises[0] else "more"
        sentence = f"requires {then} of a rise over the request's own picture: {rises[1]:g}"
        if not rises[1]:
            sentence = "found whatever the request's own picture shows"
        yield Change(now.id, "more_than_input", sentence, turn(rises[1], rises[0]))
