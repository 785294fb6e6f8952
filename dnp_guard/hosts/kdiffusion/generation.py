"""Guard one run of a sampler, from its first step to the finished pictures."""

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
    """Encodes texts as the model's conditioning, with one entry per text."""
    Decode = Callable[[Tensor], list[Image]]
    """Decodes latents [B, ...] to B pictures."""


class Generation:
    """One guarded run of a sampler: it queries the VLM, holds the negatives that steer, and checks the pictures.

    Args:
        guard: the guard.
        request: number of images, prompts and settings, for the policy and the audit record.
        progress: progress of the run.
        encode: encodes texts as conditioning.
        decode: decodes latents to pictures, to show them to the VLM.
        negatives: the user's own negative prompt per image; None if it is not known as text.
        attention: attention layers to steer; None to steer the model's outputs.
        guided: whether the model has an unconditional prediction.
        policy: the policy that the caller has checked, because a reload can replace the one in force at any time; None
            for the one in force.

    Raises:
        CannotSteer: guidance mode ``replace`` would drop a negative prompt that is not known as text.
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
        """Return the policy's guidance settings, such as the mode by which negatives steer."""
        return self.driver.policy.guidance

    def attention_lost(self) -> None:
        """Steer the model's outputs from this evaluation on, because its attention could not be steered."""
        self.attention = None
        self.driver.attention_lost()
        try:
            self.held.hold(to_hold(self.driver.session.state))
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.driver.missed(None, error)
        self.held.take()

    def evaluating(self, sigma: float) -> bool:
        """Note an evaluation of the model; if it begins a step, put the last query's negatives in force.

        Args:
            sigma: noise level of the evaluation.

        Returns:
            Whether the evaluation begins a step, and is not a sub-step of one.
        """
        begins = self._progress.begins(sigma)
        if begins:
            self.held.take()
        return begins

    def callback(self, info: Mapping[str, Any]) -> None:
        """Query the VLM about a step's prediction if a query is due; a k-diffusion sampler calls this at every step.

        Args:
            info: the sampler's facts about the step; ``i`` (its index), ``sigma`` and ``denoised`` (x̂0) are used.

        Raises:
            DnpGuardError: the run draws images again, and takes longer than the policy allows.
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
        """Return a step's ``info`` for the user's callback; ``x`` and ``denoised`` are hidden if the policy says so."""
        limits = self.driver.user_previews
        return {key: cover(value, limits) if key in {"x", "denoised"} else value for key, value in info.items()}

    def finish(self, pictures: Callable[[], list[Image]], draw: Callable[[], list[Image]] | None = None) -> list[Image]:
        """Query the VLM about the finished pictures, draw them again if the policy says so, and return the result.

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
        """Prepare to run the sampler again, steered from its first evaluation on."""
        self._progress, self.compared = progress, None
        self.held.take()

    def abandon(self, reason: str) -> None:
        """Record that the run ended without pictures; do nothing if it is finished."""
        if self.driver.report is None:
            self.driver.abandon(reason)
            self._guard.finished(self.driver)


@dataclass(frozen=True, slots=True)
class _Denoised(View):
    """The clean images x̂0 that one step predicts, as latents.

    Attributes:
        generation: the guarded run.
        prediction: x̂0, latents [B, ...].
    """

    generation: Generation
    prediction: Tensor

    def pictures(self) -> list[Image]:
        """Decode the prediction to the RGB pictures to query."""
        if not self.prediction.isfinite().all():
            raise DnpGuardError("the prediction is not finite", hint="Half precision may overflow: use float32.")
        pictures = self.generation.decode(self.prediction)
        self.generation.compared = coarse(self.prediction)
        return faces(pictures)

    def likeness(self) -> list[float]:
        """Return the cosine similarity of each prediction to the last one that was decoded; empty if there is none."""
        return similarity(self.prediction, self.generation.compared)


@dataclass(frozen=True, slots=True)
class _Redrawn:
    """A finished run of a sampler, which can be repeated to draw images again.

    Attributes:
        generation: the guarded run.
        run: repeats the run, and returns its pictures; None if it cannot be repeated.
    """

    generation: Generation
    run: Callable[[], list[Image]] | None

    def pictures(self, result: list[Image], /) -> list[Image]:
        """Return the RGB pictures to query, with several for each transparent picture; see :func:`faces`."""
        return faces(result)

    def draw(self, images: tuple[int, ...], /) -> list[Image]:
        """Run the sampler again, for the whole batch, and return its pictures."""
        if self.run is None:
            raise CannotSteer("the sampler cannot be run again", hint="Report this.")
        return self.run()

    def merged(self, result: list[Image], drawn: list[Image], images: tuple[int, ...], /) -> list[Image]:
        """Return the earlier pictures, with those of the given indices replaced by the new run's."""
        return [drawn[index] if index in images else picture for index, picture in enumerate(result)]
