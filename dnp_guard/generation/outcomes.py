"""Derive the outcome of each image, such as ``steered`` or ``blocked``, and build the report. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dnp_guard.generation import failmode, fields, judge
from dnp_guard.types import Action, ImageReport, Outcome, Report

if TYPE_CHECKING:
    from dnp_guard.generation.state import ImageState, State
    from dnp_guard.policy.model.policy import Policy


UserPreviews = Literal["withhold", "blur", "allow"]


def enforces(policy: Policy) -> bool:
    """Return whether a policy enforces at least one category; it does not if all are in shadow (recorded only)."""
    return any(not policy.shadow(category.id) for category in policy.categories)


def outcome(policy: Policy, state: State, image: ImageState, *, aborted: bool) -> Outcome:
    """Return the outcome of one image.

    Args:
        policy: the policy in force.
        state: state of the session.
        image: state of the image.
        aborted: whether the image must be withheld, whatever it shows.
    """
    if not enforces(policy):
        return Outcome.CLEAN if image.queries else Outcome.UNASKED
    if state.turned_away:
        answered = any(report.action == "block" and report.decision is not None for report in state.inputs)
        return Outcome.BLOCKED if answered else Outcome.FAILED_CLOSED
    last = image.final if policy.queries.final and image.final is not None else image.last
    seen = judge.settle(last, image.history, final=image.final is not None, steered=bool(image.negatives))
    return failmode.resolve(
        policy.on_failure,
        seen,
        missed=state.missed,
        answered=bool(image.queries),
        request_caused=aborted or state.caused,
    )


def previews(policy: Policy, state: State, *, secret: bool) -> tuple[UserPreviews, ...]:
    """Return whether the host may show its user each unfinished image now.

    ``allow`` as long as the guard acts on no finding, draws the image for the first time, and has missed no query (a
    miss is ignored under ``on_failure: open``). Otherwise ``preview.user_previews`` of the policy applies, or
    ``withhold`` if it has a sensitive category. Images that only fill the batch of a retry are withheld, too.

    Args:
        policy: the policy in force.
        state: state of the session.
        secret: whether the policy has a sensitive category.
    """
    how: UserPreviews = "withhold" if secret else policy.preview.user_previews
    blind = state.missed and enforces(policy) and policy.on_failure != "open"
    shown: list[UserPreviews] = []
    for index, image in enumerate(state.images):
        if state.drawing is not None and index not in state.drawing:
            shown.append("withhold")  # it only fills the batch of a retry, without its negative
        else:
            shown.append(how if blind or image.acted_on or image.attempts > 1 else "allow")
    return tuple(shown)


def would(policy: Policy, image: ImageState, outcome: Outcome) -> Outcome | None:
    """Return the outcome that an image would have if no category were in shadow; None if it is the same.

    Args:
        policy: the policy in force.
        image: state of the image.
        outcome: the real outcome of the image.
    """
    decisions = [query.decision for query in image.queries]
    if all(decision.would_action is None for decision in decisions):
        return None
    actions = [decision.would_action or decision.action for decision in decisions]
    negatives = [
        decision.negative if decision.would_action is None else decision.would_negative for decision in decisions
    ]
    last = actions[-1] if image.final is not None or image.last is not None else None
    if last is Action.RETRY:
        last = policy.retries.otherwise if policy.retries is not None else Action.BLOCK
    if last in _AT_THE_END:
        rehearsed = _AT_THE_END[last]
    elif any(negatives):
        rehearsed = Outcome.STEERED
    else:
        rehearsed = Outcome.MONITORED
    return None if rehearsed is outcome else rehearsed


_AT_THE_END = {Action.BLOCK: Outcome.BLOCKED, Action.BLUR: Outcome.BLURRED}


def report(policy: Policy, state: State) -> Report | None:
    """Return the report of a generation; None before the generation is over."""
    if state.outcomes is None:
        return None
    images = []
    for decision, image in zip(state.outcomes, state.images, strict=True):
        rehearsed = would(policy, image, decision)
        why = fields.refused(state.inputs) or fields.why(policy, decision, image.queries, image.negatives, rehearsed)
        why = fields.with_attempts(why, image.attempts, image.not_again)
        images.append(ImageReport(decision, image.queries, image.negatives, why, rehearsed, image.attempts))
    return Report(
        state.id, policy.name, policy.digest, tuple(images), state.degraded, state.inputs, retry_ms=state.retry_ms
    )
