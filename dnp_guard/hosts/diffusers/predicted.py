"""A step's prediction as the driver sees it; every part is computed only on request."""

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
    """Interface of the running call for the views of its steps.

    Attributes:
        guard: the guard.
        driver: driver of the generation.
        begun: facts proven before the first step; None before it.
        compared: reduced form of the last prediction that was decoded; None before one was.
    """

    guard: Guard
    driver: Driver
    begun: Begun | None
    compared: Tensor | None

    def decoded(self, latents: Tensor) -> list[Image]:
        """Decode latents as the policy requires."""


@dataclass(frozen=True, slots=True)
class Predicted(View):
    """The prediction x̂0 of one step.

    Attributes:
        call: the call.
        step: the step, with its prediction.
    """

    call: PredictingCall
    step: Step

    def pictures(self) -> list[Image]:
        """Decode x̂0 as the policy requires."""
        self.call.compared = coarse(self.step.prediction)
        return self.call.decoded(self.step.prediction)

    def likeness(self) -> list[float]:
        """Return the cosine of x̂0, averaged over 2x2 latents, with the last x̂0 that was decoded."""
        return similarity(self.step.prediction, self.call.compared)

    def nearness(self) -> list[dict[str, float]]:
        """Return the probe's nearness per image and category; empty without a probe."""
        call, step = self.call, self.step
        rule, probe = call.driver.policy.queries.skip_probe, call.guard.probe
        if probe is None or rule is None or step.total is None or call.begun is None:
            return []
        with call.guard.metrics.overhead("predict"):
            return probe.nearness(call.begun.shows.scaled(step.prediction), step.index / step.total, rule.max_miss)
