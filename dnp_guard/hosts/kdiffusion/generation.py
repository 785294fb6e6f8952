"""The guard's part in one run of a sampler, from its first step to the finished pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation import pacing
from dnp_guard.generation.host import View
from dnp_guard.generation.redrawing import check_time, finished
from dnp_guard.generation.second_chance import to_hold
from dnp_guard.hosts.backgrounds import faces
from dnp_guard.hosts.delivery import delivered
from dnp_guard.hosts.diffusers.showing.caller_view import cover
from dnp_guard.hosts.likeness import coarse, similarity
from dnp_guard.steering.held import Held
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.driver import Driver
    from dnp_guard.generation.state import Request
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.kdiffusion.layers import Layers
    from dnp_guard.hosts.kdiffusion.progress import Progress
    from dnp_guard.policy import Guidance, Policy

    Encode = Callable[[list[str]], Any]
    """Turns texts into the model's conditioning, with one entry per text."""
    Decode = Callable[[Tensor], list[Image]]
    """Decodes latents [B, ...] to B pictures."""


class Generation:
    """The guard's part in one run of a sampler.

    Args:
        guard: the guard.
        request: the request.
        progress: progress of the run.
        encode: turns texts into conditioning.
        decode: decodes latents to pictures, for the looks.
        negatives: the user's own negative prompt per image; None if it is not known as text.
        attention: attention layers that are steered; None if the model's outputs are.
        guided: whether the model has an unconditional prediction.
        policy: policy that the host has checked, which a reload may have replaced since; None for the one in force.

    Raises:
        CannotSteer: ``replace`` would drop an unknown negative prompt.
        RequestRefused: the policy does not allow so many questions.
    """

    def __init__(
        self,
        guard: Guard,
        request: Request,
        progress: Progress,
        encode: Encode,
        decode: Decode,
        negatives: Sequence[str] | None = None,
        *,
        attention: Layers | None = None,
        guided: bool = True,
        policy: Policy | None = None,
    ) -> None:
        policy = policy or guard.policy
        if policy.guidance.mode == "replace" and negatives is None and policy.mode != "shadow":
            raise CannotSteer(
                "guidance mode 'replace' needs the user's negative as text",
                hint="Pass negative_prompts= (empty strings where there are none), or use guidance mode 'separate'.",
            )
        self.attention = attention
        self._guard = guard
        self._progress = progress
        self.decode = decode
        self.compared: Tensor | None = None
        self.held = Held(lambda text: encode([text]), negatives or [""] * request.images)
        self.driver: Driver = guard.start(request, policy, steering=self.held)
        self.driver.session.levels = progress.levels
        if attention is not None:
            self.driver.session.steers_attention(guided=guided)

    @property
    def guidance(self) -> Guidance:
        """Return how a negative enters the guidance."""
        return self.driver.policy.guidance

    def attention_lost(self) -> None:
        """Steer by the model's outputs from this evaluation on, as its attention is not reached."""
        self.attention = None
        self.driver.attention_lost()
        try:
            self.held.hold(to_hold(self.driver.session.state))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(None, error)
        self.held.take()

    def evaluating(self, sigma: float) -> bool:
        """Note that the model is about to be evaluated; at the start of a step, take the negatives of the last look.

        Returns:
            Whether a step begins.
        """
        begins = self._progress.begins(sigma)
        if begins:
            self.held.take()
        return begins

    def callback(self, info: Mapping[str, Any]) -> None:
        """Query the prediction of a step if a query is due; a sampler of k-diffusion calls this after every step.

        Args:
            info: the sampler's facts about the step; ``i`` (its index), ``sigma`` and ``denoised`` (x̂0) are used.

        Raises:
            DnpGuardError: the run is a retry that takes longer than the policy allows.
        """
        check_time(self.driver)
        try:
            self.held.take()  # if one sub-step too many was counted, the next step has begun nevertheless
            index, sigma, total = int(info["i"]), float(info["sigma"]), self._progress.total
            done = self._progress.called_back(index, sigma)
            step = Step(index, total, sigma, info["denoised"], progress=done if total is None else None)
            at, of = pacing.place(step)
            if of is not None and self.driver.due(at, of):
                self.driver.step(step, _Denoised(self, info["denoised"]))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(None, error)

    def shown(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """Return a step's ``info`` for the user's own callback, with ``x`` and ``denoised`` covered by the policy."""
        limits = self.driver.user_previews
        return {key: cover(value, limits) if key in {"x", "denoised"} else value for key, value in info.items()}

    def finish(self, pictures: Callable[[], list[Image]], draw: Callable[[], list[Image]] | None = None) -> list[Image]:
        """Make the final look.

        Args:
            pictures: returns the finished pictures, in the order of the batch.
            draw: runs the sampler again from the same noise; None if nothing can be drawn again.

        Returns:
            The pictures as their outcomes allow: unchanged, blurred, or replaced by a notice.
        """
        made, outcomes = finished(self.driver, pictures(), _Redrawn(self, draw))
        self._guard.finished(self.driver)
        return delivered(self.driver.policy, made, outcomes)

    def begin_again(self, progress: Progress) -> None:
        """Prepare for the sampler to run again, steered from its first evaluation on."""
        self._progress, self.compared = progress, None
        self.held.take()

    def abandon(self, reason: str) -> None:
        """Note that the run ended without pictures; do nothing if it ended with them."""
        if self.driver.report is None:
            self.driver.abandon(reason)
            self._guard.finished(self.driver)


@dataclass(frozen=True, slots=True)
class _Denoised(View):
    """The prediction x̂0 of one step.

    Attributes:
        generation: the generation.
        prediction: x̂0, latents [B, ...].
    """

    generation: Generation
    prediction: Tensor

    def pictures(self) -> list[Image]:
        """Decode x̂0."""
        if not self.prediction.isfinite().all():
            raise DnpGuardError("the prediction is not finite", hint="Half precision may overflow: use float32.")
        pictures = self.generation.decode(self.prediction)
        self.generation.compared = coarse(self.prediction)
        return faces(pictures)

    def likeness(self) -> list[float]:
        """Return the cosine of x̂0 with the last x̂0 that was decoded."""
        return similarity(self.prediction, self.generation.compared)


@dataclass(frozen=True, slots=True)
class _Redrawn:
    """A run of a sampler that can be repeated.

    Attributes:
        generation: the generation.
        run: repeats it; None if it cannot be repeated.
    """

    generation: Generation
    run: Callable[[], list[Image]] | None

    def pictures(self, result: list[Image], /) -> list[Image]:
        """Return the RGB pictures to query; a transparent picture is in them several times, see :func:`faces`."""
        return faces(result)

    def draw(self, images: tuple[int, ...], /) -> list[Image]:
        """Run the sampler again."""
        if self.run is None:
            raise CannotSteer("the sampler cannot be run again", hint="Report this.")
        return self.run()

    def merged(self, result: list[Image], drawn: list[Image], images: tuple[int, ...], /) -> list[Image]:
        """Copy the given images of a new run into the pictures."""
        return [drawn[index] if index in images else picture for index, picture in enumerate(result)]
