"""The guard's part in one run of a sampler, from its first step to the finished pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.generation import pacing as schedule
from dnp_guard.hosts.diffusers.shown import cover
from dnp_guard.hosts.likeness import coarse, similarity
from dnp_guard.hosts.pictures import delivered
from dnp_guard.steering.branch import Term
from dnp_guard.types import Step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.generation.session import Request, Session
    from dnp_guard.guard import Guard
    from dnp_guard.hosts.kdiffusion.progress import Progress
    from dnp_guard.types import Negative

    Encode = Callable[[list[str]], Any]
    """Texts to the model's conditioning, one entry a text."""
    Decode = Callable[[Tensor], list[Image]]
    """Latents [B, ...] to B pictures."""


class Generation:
    """A session's host for one run of a sampler.

    Args:
        guard: the guard.
        request: what is generated.
        progress: of the run.
        encode: texts to conditioning.
        decode: latents to pictures, for the looks.
        negatives: the user's own negative prompt of each image; None where it is not known as text.

    Raises:
        CannotSteer: ``replace`` would drop a negative prompt that is not known.
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
    ) -> None:
        policy = guard.policy
        if policy.guidance.mode == "replace" and negatives is None and policy.mode != "shadow":
            raise CannotSteer(
                "guidance mode 'replace' needs the user's negative as text",
                hint="Pass negative_prompts= (empty strings where there are none), or use guidance mode 'separate'.",
            )
        self.guidance = policy.guidance
        self.active: Mapping[int, Term] = {}
        self._guard = guard
        self._progress = progress
        self._encode, self._decode = encode, decode
        self._negatives = negatives or [""] * request.images
        self._encoded: dict[str, Any] = {}
        self._next: Mapping[int, Term] | None = None
        self._seen: Tensor | None = None
        self.session: Session = guard.start(request, policy)

    def similarity(self, step: Step) -> list[float]:
        """Cosine of x̂0 with the last x̂0 that was decoded."""
        return similarity(step.prediction, self._seen)

    def previews(self, step: Step) -> list[Image]:
        """Decode x̂0."""
        if not step.prediction.isfinite().all():
            raise DnpGuardError("the prediction is not finite", hint="Half precision may overflow: use float32.")
        pictures = self._decode(step.prediction)
        self._seen = coarse(step.prediction)
        return [picture.convert("RGB") for picture in pictures]

    def apply(self, negatives: Sequence[Negative | None]) -> None:
        """Encode the negatives; they count from the first evaluation of the next step on."""
        self._next = {
            index: self._term(negative, self._negatives[index])
            for index, negative in enumerate(negatives)
            if negative is not None
        }

    def evaluating(self, sigma: float) -> bool:
        """Note that the model is about to be evaluated: a step that begins takes the negatives of the last look.

        Returns:
            Whether it begins a step.
        """
        begins = self._progress.begins(sigma)
        if begins:
            self._take()
        return begins

    def callback(self, info: Mapping[str, Any]) -> None:
        """Look at a step, as a sampler's callback: ``i``, ``sigma`` and ``denoised``, which is x̂0, of ``info``."""
        try:
            self._take()  # where a sub-step was taken for one too many, the next step has begun all the same
            index, sigma, total = int(info["i"]), float(info["sigma"]), self._progress.total
            done = self._progress.called_back(index, sigma)
            step = Step(index, total, sigma, info["denoised"], progress=done if total is None else None)
            at, of = schedule.place(step)
            if of is not None and self.session.due(at, of):
                self.session.step(step, self)
        except Exception as error:  # noqa: BLE001 (nothing may raise into the generation)
            self.session.missed(None, error)

    def shown(self, info: Mapping[str, Any]) -> dict[str, Any]:
        """What the user's own callback may see of a step: ``x`` and ``denoised`` covered, as the policy says."""
        told = self.session.user_previews
        return {key: cover(value, told) if key in {"x", "denoised"} else value for key, value in info.items()}

    def finish(self, pictures: Callable[[], list[Image]]) -> list[Image]:
        """Make the final look.

        Args:
            pictures: gives the finished pictures, in the order of the batch.

        Returns:
            Each as its outcome allows: itself, blurred, or a blank one.
        """
        made = pictures()
        outcomes = self.session.final(lambda: [picture.convert("RGB") for picture in made])
        self._guard.finished(self.session)
        return delivered(made, outcomes)

    def abandon(self, reason: str) -> None:
        """Note that the run ended without pictures; nothing where it ended with them."""
        if self.session.report is None:
            self.session.abandon(reason)
            self._guard.finished(self.session)

    def _take(self) -> None:
        if self._next is not None:
            self.active, self._next = self._next, None

    def _term(self, negative: Negative, users: str) -> Term:
        text = f"{negative.text}, {users}" if negative.mode == "replace" and users else negative.text
        if text not in self._encoded:
            self._encoded[text] = self._encode([text])
        return Term(text, self._encoded[text], negative.scale or 0.0)
