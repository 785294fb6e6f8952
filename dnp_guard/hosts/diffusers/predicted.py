"""Show the prediction of a step to the driver, which makes the queries; pictures are decoded only on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dnp_guard.generation.host import View
from dnp_guard.hosts.likeness import coarse, similarity

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.driver import Driver
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.beginning import Begun
    from dnp_guard.types import Step


class PredictingCall(Protocol):
    """The part of a guarded call that :class:`Predicted` uses.

    Attributes:
        guard: the guard.
        driver: driver of the generation, which makes the queries.
        begun: facts that are known before the first step; None as long as they are not.
        compared: coarse form of the last prediction that was decoded; None if none was.
    """

    guard: Guard
    driver: Driver
    begun: Begun | None
    compared: Tensor | None

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents to pictures, as the policy's ``preview`` requires."""


@dataclass(frozen=True, slots=True)
class Predicted(View):
    """The clean images x̂0 that one step predicts, as latents.

    Attributes:
        call: the running call.
        step: the step, with its prediction.
    """

    call: PredictingCall
    step: Step

    def pictures(self) -> list[Image]:
        """Decode the prediction to pictures, as the policy's ``preview`` requires."""
        self.call.compared = coarse(self.step.prediction)
        return self.call.decoded(self.step.prediction)

    def likeness(self) -> list[float]:
        """Return the cosine similarity of each prediction to the last one that was decoded; empty if there is none."""
        return similarity(self.step.prediction, self.call.compared)

    def nearness(self) -> list[dict[str, float]]:
        """Return the probe's score divided by its threshold, per image and category; empty if there is no probe."""
        call, step = self.call, self.step
        rule, probe = call.driver.policy.queries.skip_probe, call.guard.probe
        if probe is None or rule is None or step.total is None or call.begun is None:
            return []
        with call.guard.metrics.overhead("predict"):
            return probe.nearness(call.begun.shows.scaled(step.prediction), step.index / step.total, rule.max_miss)
