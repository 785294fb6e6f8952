"""Apply a decision to an image's steering, and report the change. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dnp_guard.generation import events

if TYPE_CHECKING:
    from dnp_guard.generation.state import ImageState
    from dnp_guard.types import Decision, Step

IN_VAIN: Final = "not_effective"
"""Reason of a degradation: a negative prompt came too late for the host to steer by it."""


def steered(
    image: ImageState, index: int, step: Step, now: Step, decision: Decision
) -> tuple[ImageState, list[events.Event]]:
    """Steer an image by a decision from the step after ``now`` on; return its new state, and events of the change."""
    negative, applied = decision.negative, now.index + 1
    untold = negative is not None and image.effective != negative and now.effective
    if image.negative == negative and not untold:
        return image, []
    image = replace(image, negative=negative)
    if now.total is not None and applied >= now.total:
        return image, []
    if negative is None:
        return image, [events.Cleared(index, step, applied, image.attempts)]
    injected = events.Injected(index, step, applied, decision, negative, now.effective, image.attempts)
    return replace(image, negatives=(*image.negatives, (applied, negative))) if now.effective else image, [injected]


def steers(event: events.Event) -> bool:
    """Return whether an event reports a change of steering."""
    changes = isinstance(event, events.Injected | events.Cleared)
    return changes or (isinstance(event, events.Degraded) and event.reason == IN_VAIN)
