"""How a decision changes what an image is steered away from, and what is told of the change. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from dnp_guard.generation import events

if TYPE_CHECKING:
    from dnp_guard.generation.state import ImageState
    from dnp_guard.types import Decision, Step

IN_VAIN: Final = "not_effective"
"""The reason told where a negative comes too late for the host to steer by it."""


def steered(
    image: ImageState, index: int, step: Step, now: Step, decision: Decision
) -> tuple[ImageState, list[events.Event]]:
    """An image after a decision, steered from the step after ``now`` on, and what to tell of the change."""
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
    """Whether an event tells of a change of steering."""
    changes = isinstance(event, events.Injected | events.Cleared)
    return changes or (isinstance(event, events.Degraded) and event.reason == IN_VAIN)
