"""Retries: which images are drawn again, which negative prompts steer them, and what applies if not. Pure."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from dnp_guard.generation import events, judge
from dnp_guard.generation.judge import HeldCategory, History
from dnp_guard.generation.pacing import Pace, spent
from dnp_guard.policy.model.scalars import MOST_STRENGTHENING
from dnp_guard.steering.negatives import negative_for
from dnp_guard.types import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dnp_guard.generation.state import ImageState, State
    from dnp_guard.policy.model.policy import Policy
    from dnp_guard.types import Decision, InAttention, Negative

LEFT: Final = "the host did not draw it again"
CANNOT: Final = "the host cannot draw again"
NO_WORDS: Final = "there are no words to steer it by"
NO_TIME: Final = "there is no time left for it"


def wanted(state: State) -> tuple[int, ...]:
    """Return the indices of the images whose final look, the query of the finished image, asks for another attempt."""
    return tuple(index for index in state.drawn if _asks(state.images[index]))


def begin(
    policy: Policy, state: State, *, can: bool, in_time: bool
) -> tuple[State, list[events.Event], tuple[int, ...]]:
    """Begin another attempt of the images that ask for it and can have it; replace ``retry`` for the others.

    Args:
        policy: the policy in force.
        state: state of the session, after a final look.
        can: whether the host can draw again.
        in_time: whether another attempt would finish in time.

    Returns:
        The new state, the events, and the indices of the images to draw again; empty if there are none.
    """
    images, happened, drawing = list(state.images), list[events.Event](), []
    for index in wanted(state):
        image = images[index]
        negative = in_force(policy, image)
        last = policy.retries is None or image.attempts > policy.retries.most
        reason = "" if last else CANNOT if not can else NO_TIME if not in_time else NO_WORDS if negative is None else ""
        if last or reason or image.final is None:
            images[index] = given_up(image, reason)
            happened.append(events.RetryEnded(index, "still_present" if image.attempts > 1 else "not_made"))
            continue
        images[index] = _anew(policy, image, negative)
        happened.append(events.Retried(index, image.attempts + 1, image.final, negative))
        drawing.append(index)
    changed = replace(state, images=tuple(images))
    if drawing:
        changed = replace(changed, drawing=frozenset(drawing), answered=-1, in_flight=False)
    return changed, happened, tuple(drawing)


def failed(state: State, reason: str) -> tuple[State, list[events.Event]]:
    """End a retry that failed: the images of the attempt before stand, with the action that replaces ``retry``.

    Args:
        state: state of the session.
        reason: why the retry failed.
    """
    images, happened = list(state.images), list[events.Event]()
    for index in sorted(state.drawing or ()):
        images[index] = given_up(_as_before(images[index]), reason)
        happened.append(events.RetryEnded(index, "failed"))
    return replace(
        state, images=tuple(images), drawing=frozenset(), missed=False, caused=False, in_flight=False
    ), happened


def undone(state: State) -> State:
    """Return the state that a session would have if its running retry were discarded and none followed.

    Every image gets back its earlier final look, with the action that replaces ``retry``.
    """
    images = list(state.images)
    for index in sorted(state.drawing or ()):
        images[index] = given_up(_as_before(images[index]))
        images[index] = replace(images[index], attempts=images[index].attempts - 1)
    return replace(state, images=tuple(images), missed=False, caused=False)


def given_up(image: ImageState, reason: str = "") -> ImageState:
    """Give an image that is not drawn again the action that replaces ``retry``.

    Args:
        image: the image.
        reason: why a possible retry is not made; empty if its attempts are used up.
    """
    if not _asks(image) or image.final is None:
        return image
    return replace(image, final=judge.not_again(image.final), not_again=reason)


def to_hold(state: State) -> list[Negative | None]:
    """Return the negative prompt that steers each image now; None for images that only fill the batch of a retry."""
    return [image.negative if index in state.drawn else None for index, image in enumerate(state.images)]


def in_force(policy: Policy, image: ImageState) -> Negative | None:
    """Return the negative prompt that steers a retry from its first step on, made from all findings so far.

    Where it steers in attention, it has no separate guidance term yet: that term joins at the first query, because in
    the first steps, which settle the composition, it would suppress what the prompt asks for. If no query can follow,
    the term is there from the first step on.
    """
    negative = negative_for(policy, _seen(policy, image), escalated=not _queries_follow(policy, image))
    return _in_retry(policy, negative, image.attempts)


def _queries_follow(policy: Policy, image: ImageState) -> bool:
    """Return whether a retry of an image can be queried before its end."""
    own = any(category.queries is not None and category.queries.steps for category in policy.categories)
    return bool(policy.queries.steps or policy.queries.sigmas or own) and spent(policy.queries, image.pace) is None


def harder(policy: Policy, negative: Negative | None, retry: int) -> Negative | None:
    """Strengthen a negative prompt for a retry: raise its scale, and in attention ``alpha``, ``tau`` and ``mask``.

    Args:
        policy: the policy in force.
        negative: the negative at the strength of the first attempt.
        retry: number of the retry, from 1; every retry is stronger than the one before.
    """
    if negative is None or policy.retries is None:
        return negative
    by, attention = min(policy.retries.scale**retry, MOST_STRENGTHENING), negative.attention
    return replace(
        negative,
        scale=negative.scale * by if negative.scale is not None else None,
        attention=_stronger(attention, by) if attention is not None else None,
    )


def _stronger(attention: InAttention, by: float) -> InAttention:
    """Multiply ``alpha`` and ``mask`` by a factor, up to 1; an ``alpha`` beyond 1 multiplies ``tau`` instead."""
    alpha = attention.alpha * by
    return replace(
        attention, alpha=min(1.0, alpha), tau=attention.tau * max(1.0, alpha), mask=min(1.0, attention.mask * by)
    )


def steered(policy: Policy, image: ImageState, decision: Decision) -> Decision:
    """Strengthen the negative prompt of a decision if the image is being retried."""
    retry = image.attempts - 1
    return replace(decision, negative=_in_retry(policy, decision.negative, retry)) if retry else decision


def _in_retry(policy: Policy, negative: Negative | None, retry: int) -> Negative | None:
    """Return a negative prompt at the strength of a retry.

    A separate term beside attention has the share ``retry / (most + 1)`` of its scale, so that it grows in equal steps
    from retry to retry. The rule is ours: an image that a weak term clears keeps more of what its prompt asks for.
    """
    negative = harder(policy, negative, retry)
    if policy.retries is None or negative is None or negative.attention is None or negative.scale is None:
        return negative
    return replace(negative, scale=negative.scale * retry / (policy.retries.most + 1))


def _asks(image: ImageState) -> bool:
    return image.final is not None and image.final.action is Action.RETRY


def _as_before(image: ImageState) -> ImageState:
    """Restore an image as the previous attempt left it; the retry's queries stay in the report."""
    begins = max((place for place, (step, _) in enumerate(image.negatives) if step == 0), default=None)
    return replace(image, final=image.retried, negatives=image.negatives[:begins])


def _seen(policy: Policy, image: ImageState) -> dict[str, tuple[str, ...]]:
    """Return the terms found in an image so far, by category, except categories in shadow or only monitored."""
    terms: dict[str, tuple[str, ...]] = {}
    decisions: Iterable[Decision] = (query.decision for query in image.queries)
    for finding in (finding for decision in decisions for finding in decision.findings):
        category = policy.category(finding.category)
        ends = Action.strictest(Action(category.action), Action(category.still_present or Action.BLOCK))
        if not policy.shadow(category.id) and ends is not Action.MONITOR:
            terms[category.id] = _with(policy, category.id, terms.get(category.id, ()), finding.term)
    return terms


def _with(policy: Policy, category: str, terms: Sequence[str], term: str) -> tuple[str, ...]:
    return tuple(known for known in policy.category(category).terms if known == term or known in terms)


def _anew(policy: Policy, image: ImageState, negative: Negative | None) -> ImageState:
    """Reset an image for its next attempt; earlier queries and negatives stay in the report."""
    held = {category: HeldCategory(terms, stays=True) for category, terms in _seen(policy, image).items()}
    return replace(
        image,
        history=History(MappingProxyType(held), image.history.found),
        last=None,
        final=None,
        retried=image.final,
        attempts=image.attempts + 1,
        negative=negative,
        negatives=(*image.negatives, *(((0, negative),) if negative is not None else ())),
        pace=Pace(image.pace.waited_ms),
        compared=frozenset(),
    )
