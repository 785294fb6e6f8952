"""What becomes of a generation's images, and the report of it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dnp_guard.generation import failmode, fields, judge
from dnp_guard.types import ImageReport, Outcome, Report

if TYPE_CHECKING:
    from dnp_guard.generation.state import ImageState, State
    from dnp_guard.policy.model.policy import Policy


def enforces(policy: Policy) -> bool:
    """Whether anything of a policy is enforced, and not only in shadow."""
    return any(not policy.shadow(category.id) for category in policy.categories)


def outcome(policy: Policy, state: State, image: ImageState, *, aborted: bool) -> Outcome:
    """The outcome of one image.

    Args:
        policy: the policy in force.
        state: of the session.
        image: of the image.
        aborted: whether the image may not be delivered whatever it shows.
    """
    if not enforces(policy):
        return Outcome.CLEAN
    last = image.final if policy.queries.final and image.final is not None else image.last
    seen = judge.settle(last, image.history, final=image.final is not None, steered=bool(image.negatives))
    return failmode.resolve(
        policy.on_failure,
        seen,
        missed=state.missed,
        answered=bool(image.queries),
        request_caused=aborted or state.caused,
    )


def report(policy: Policy, state: State) -> Report | None:
    """The report of a generation; None before it is over."""
    if state.outcomes is None:
        return None
    images = [
        ImageReport(decision, image.queries, image.negatives, fields.why(decision, image.queries))
        for decision, image in zip(state.outcomes, state.images, strict=True)
    ]
    return Report(state.id, policy.name, policy.digest, tuple(images), state.degraded)
