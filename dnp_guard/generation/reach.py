"""Choose how to steer: in the denoiser's attention where the host can, otherwise by a separate guidance term. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dnp_guard.generation import events
from dnp_guard.types import Negative

if TYPE_CHECKING:
    from dnp_guard.generation.state import Reach, State
    from dnp_guard.policy.model.policy import Policy

LOST: Final = "attention_lost"
"""Reason of a degradation: the host failed to steer in attention, and steers by a ``separate`` guidance term."""


def in_attention(policy: Policy, *, shown: bool) -> bool:
    """Return whether a host that can steer in its denoiser's attention does so under a policy.

    Args:
        policy: the policy in force.
        shown: whether steering in attention was shown to work for the model; ``mode: auto`` needs that.
    """
    mode = policy.guidance.mode
    return policy.mode != "shadow" and (mode == "attention" or (mode == "auto" and shown))


def steered(policy: Policy, reach: Reach) -> Policy:
    """Return the policy with ``mode: auto`` replaced by the mode that the host can use; the digest stays the same."""
    if reach == "lost":
        return policy.by_outputs()
    return (
        policy.steered_by("separate") if reach == "none" else policy.steered_by("attention", guided=reach == "guided")
    )


def lost(policy: Policy, state: State) -> tuple[State, events.Event]:
    """Switch a session whose host failed to steer in attention to a ``separate`` guidance term.

    Args:
        policy: policy of the session, before ``mode: auto`` was replaced.
        state: state of the session.

    Returns:
        The new state, in which the negatives in force are separate guidance terms, and the event to report.
    """
    separate = policy.by_outputs()
    images = tuple(replace(image, negative=_by_outputs(policy, separate, image.negative)) for image in state.images)
    event = events.Degraded(LOST, None, "the host could not steer in attention space, and goes on by separate")
    return replace(state, images=images, reach="lost", degraded=(*state.degraded, LOST)), event


def _by_outputs(policy: Policy, separate: Policy, negative: Negative | None) -> Negative | None:
    """Turn a negative that steers attention into a separate guidance term, at the same fraction of full strength."""
    if negative is None or negative.attention is None:
        return negative
    full = policy.guidance.attention.alpha if policy.guidance.attention is not None else 0.0
    share = negative.attention.alpha / full if full else 1.0
    scales = [separate.scale(category) for category in negative.categories]
    scale = max((scale for scale in scales if scale is not None), default=0.0)
    return Negative(negative.words, scale * share, "separate", negative.categories)
