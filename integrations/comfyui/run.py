"""One run of a sampler under the guard, with its looks and the negatives that push its prediction."""

from __future__ import annotations

import math
from copy import copy
from typing import TYPE_CHECKING, Any

import torch

from . import guidance, host, pictures
from .attending import Attending
from .batch import Withheld
from .likeness import coarse, similarity
from .looks import interrupted
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

_OWN_STEPS = ("dpm_fast", "dpm_adaptive")
"""Parts of the names of samplers that choose their own steps, whatever the given noise levels."""


class Run:
    """One run of a sampler.

    Args:
        batch: the looks, in process or at the service.
        sampler: the sampler, from ComfyUI's guider.
        sigmas: the noise levels of the run.
        guider: the guider of the run; its ``conds`` and ``cfg`` tell whether there is guidance.
        clip: encodes negatives.
        vae: decodes predictions; None to use the latent format's colours.
        given: ``latent_image``, ``denoise_mask`` and ``seed`` of the run.
        attending: the run's part in the attention of the model.

    Attributes:
        drawn_by: the node that samples, and its item of a list; None if the host does not tell.
        timeline: the pictures of every look by step, covered as the policy asks.
        held: the images that are steered after every look, by step.
        delivered: the finished pictures after the final look; none before it.
        judged: the finished pictures of a run that made its own final look; None before it or without one.
        attempts: number of times that every image was drawn.
    """

    def __init__(
        self,
        batch: Any,
        sampler: Any,
        sigmas: Tensor,
        guider: Any,
        clip: Any,
        vae: Any,
        given: Mapping[str, Any],
        attending: Attending | None = None,
    ) -> None:
        self.batch = batch
        self.images = len(batch.negatives)
        self.prompt = host.running_prompt()
        self.drawn_by = host.executing()
        self.timeline: dict[int, list[Image]] = {}
        self.held: dict[int, frozenset[int]] = {}
        self.delivered: list[Image] = []
        self.judged: list[Image] | None = None
        self.attempts = [1] * self.images
        self._guider, self._clip, self._vae, self._given = guider, clip, vae, given
        self._attending = attending or Attending(guider.model_patcher)
        self._attended = False  # whether the attention was steered since the last guided prediction
        self._asks = False  # whether the guard's own evaluation runs, which must not be steered
        levels = [float(sigma) for sigma in sigmas]
        name = getattr(getattr(sampler, "sampler_function", sampler), "__name__", "")
        own = self._own_steps = any(word in name for word in _OWN_STEPS)
        lowest = min((level for level in levels if level > 0), default=0.0)
        self._levels = ([] if own else levels, (max(levels), lowest))
        self._progress = Progress(*self._levels)
        self._sigma = levels[0]
        self._active: Mapping[int, Any] = {}
        self._next: Mapping[int, Any] | None = None
        self._encoded: dict[str, list[Any]] = {}
        self._seen: Tensor | None = None
        self._last: tuple[int, Tensor] | None = None

    def start(self) -> None:
        """Open the session.

        Raises:
            Withheld: no session could be opened, and the images are withheld.
        """
        self.batch.open(self._progress.total)

    @property
    def allowed(self) -> tuple[str, ...]:
        """How the host's previews may show the images."""
        return tuple(self.batch.user_previews)

    @property
    def cfg(self) -> float:
        """The guidance scale; 1 if the guider has no negative to guide from."""
        return host.cfg(self._guider)

    @property
    def effective(self) -> bool:
        """Whether a negative can take effect; in place of the unconditional that needs guidance."""
        return self.batch.mode in {"separate", "attention"} or not math.isclose(self.cfg, 1.0)

    def called_back(self, model: Any, step: int, x0: Tensor, sigmas: Tensor) -> None:
        """Look at a step.

        Raises:
            Withheld: the images will be withheld anyway, so the rest of the run would be in vain.
        """
        try:
            self._take()  # if a sub-step was mistaken for a step, the next step has begun nevertheless
            sigma = float(sigmas[step]) if self._progress.total is not None else self._sigma
            done = self._progress.called_back(step, sigma)
            self._last = (step, x0)
            if self.batch.due(step, done):
                self._look(model, step, done, sigma, x0)
        except Exception as error:  # noqa: BLE001 (the look is missed, and the run goes on)
            self.batch.missed(error)
        self._end_if_closed()

    def conditioned(self, executor: Any, model: Any, conds: Any, x: Tensor, sigma: Tensor, options: Any) -> Any:
        """Wrap ComfyUI's evaluation of conditionings, and steer in the attention over the prompt."""

        def evaluate(with_options: Any) -> Any:
            return executor(model, conds, x, sigma, with_options)

        if self.batch.mode != "attention" or self._asks:
            return evaluate(options)
        # The hook after guidance keeps count; this only finds out whether the evaluation begins a step.
        if copy(self._progress).begins(float(sigma.flatten()[0])) or self._own_steps:
            self._take()
        if not self._active:
            return evaluate(options)
        prompt = getattr(self._guider, "conds", {}).get("positive")
        place = next((index for index, cond in enumerate(conds) if cond is not None and cond is prompt), None)
        if place is None:
            return evaluate(options)  # such as a further evaluation of the unconditional only
        made, failure = self._attending.evaluated(evaluate, options, self._active, self._context, place)
        self._attended = failure is None
        return made

    def _context(self, text: str) -> Tensor:
        context: Tensor = self._encoded[text][0][0]
        return context

    def post_cfg(self, args: dict[str, Any]) -> Tensor:
        """Push the guided prediction, as ComfyUI's hook after guidance."""
        self._sigma = float(args["sigma"].flatten()[0])  # the callback of a step follows its first evaluation
        if self._progress.begins(self._sigma) or self._own_steps:  # their steps differ in the number of evaluations
            self._take()
        if not self._active:
            return args["denoised"]
        try:
            if self.batch.mode == "attention" and not self._attended:
                self.batch.attention_lost()
                self._hold()
                self._take()
            self._attended = False
            return self._pushed(args)
        except Exception as error:  # noqa: BLE001 (the step goes on unsteered, and the next one is looked at)
            self.batch.missed(error)
            return args["denoised"]

    def sampled(self, model: Any) -> None:
        """End the run.

        Raises:
            Withheld: the guard failed, and the images are withheld whatever they show.
        """
        if self.batch.owes_a_look() and self._last is not None:
            step, x0 = self._last
            step += step in self.timeline  # a repeated step would only get its earlier answer
            try:
                self._look(model, step, 1.0, None, x0, ended=True)
            except Exception as error:  # noqa: BLE001 (the final look makes up for it, or does not)
                self.batch.missed(error)
        self._end_if_closed()

    def settle(self, shown: Sequence[Image]) -> None:
        """Make the final look, unless the run has made its own."""
        if self.judged is None:
            self.batch.settle(shown)

    def shows_other(self, shown: Sequence[Image]) -> bool:
        """Return whether a later node has changed the pictures that the run itself had judged."""
        return self.judged is not None and any(
            one.tobytes() != other.tobytes() for one, other in zip(self.judged, shown)
        )

    def second_chances(self, made: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """Judge a finished run, and draw the images again whose verdicts ask for it.

        Args:
            made: the finished latents.
            draw: repeats the run from the same noise.

        Returns:
            The latents, with the rows of later attempts in them.
        """
        if not self.batch.retries:
            return made
        shown = host.pictures(self._vae.decode(made))
        self.batch.settle(shown)
        while images := self.batch.again():
            try:
                self.begin_again(images)
                drawn = draw()
                pictures_of = host.pictures(self._vae.decode(drawn))
            except Exception as error:
                if interrupted(error):
                    raise
                self.batch.give_up(error)
                break
            stands = self.batch.settle(pictures_of)
            made = made.clone()
            made[list(stands)] = drawn[list(stands)]
            shown = [pictures_of[index] if index in stands else before for index, before in enumerate(shown)]
        self.judged = shown
        return made

    def _end_if_closed(self) -> None:
        if self.batch.closed:
            raise Withheld(f"DNP Guard withholds the images: {self.batch.failure}")

    def begin_again(self, images: Sequence[int]) -> None:
        """Begin another attempt at some images of the batch."""
        self._progress = Progress(*self._levels)
        self._seen = self._last = None
        for index in images:
            self.attempts[index] += 1
        self._hold()
        self._take()

    def _look(
        self, model: Any, step: int, done: float, sigma: float | None, x0: Tensor, *, ended: bool = False
    ) -> None:
        shown = host.decoded(self._vae, model, x0)
        effective = self.effective and not ended
        like = similarity(x0, self._seen)
        self.batch.look(step, done, sigma, shown, similarities=like, effective=effective, ended=ended)
        self._seen = coarse(x0)
        held = self._hold()
        self._next = held if effective else {}
        drawn, before = self.batch.drawn, self.timeline.get(step)
        self.held[step] = frozenset(held) | {index for index in self.held.get(step, ()) if index not in drawn}
        covered = [
            picture if allowed == "allow" else pictures.acted(picture, allowed)
            for picture, allowed in zip(shown, self.allowed)
        ]
        self.timeline[step] = [
            picture if index in drawn or before is None else before[index] for index, picture in enumerate(covered)
        ]
        host.reloaded(self._guider.model_patcher)

    def _hold(self) -> dict[int, Any]:
        """Encode the held negatives, which take effect at the next step."""
        held = {index: negative for index, negative in enumerate(self.batch.negatives) if negative is not None}
        for negative in held.values():
            inside = negative.attention.parts if negative.attention is not None else ()
            for text in (*inside, *([negative.text] if _has_term(negative) else [])):
                if text not in self._encoded:
                    self._encoded[text] = host.encode(self._clip, text)
        self._next = held
        return held

    def _take(self) -> None:
        if self._next is not None:
            self._active, self._next = self._next, None

    def _pushed(self, args: dict[str, Any]) -> Tensor:
        guided = args.get("uncond") is not None
        d_u = args["uncond_denoised" if guided else "cond_denoised"]  # the only prediction stands in for it
        mask = getattr(self.batch, "mask", None)
        pushed = args["denoised"].clone()
        for (text, scale), rows in _alike(self._active).items():
            d = self._difference(args, text, rows, d_u[rows], guided=guided)
            if self.batch.mode == "replace":  # n + w (c - n) is the guided prediction plus (1 - w) (n - u)
                delta = (1 - self.cfg) * d
            else:
                delta = guidance.push(d, torch.tensor(scale, device=d.device, dtype=d.dtype))
                delta = delta if mask is None else guidance.within(delta, d, mask)
            pushed[rows] += delta.to(pushed)
        return pushed

    def _difference(self, args: dict[str, Any], text: str, rows: list[int], d_u: Tensor, *, guided: bool) -> Tensor:
        model, x, sigma = args["model"], args["input"], args["sigma"]
        beside = args["uncond"] if guided else args["cond"]
        conditioning = self._encoded[text]
        if self.batch.mode == "replace":
            conditioning = host.joined(conditioning, beside)
        conds = host.prepared(model, conditioning, beside, x, rows, self._given)
        self._asks = True
        try:
            return host.predict(model, conds, x[rows], sigma[rows], args["model_options"]) - d_u
        finally:
            self._asks = False


def _alike(active: Mapping[int, Any]) -> dict[tuple[str, float], list[int]]:
    """Group the images whose negatives have the same words and scale."""
    alike: dict[tuple[str, float], list[int]] = {}
    for index, negative in active.items():
        if _has_term(negative):
            alike.setdefault((negative.text, float(negative.scale or 0.0)), []).append(index)
    return alike


def _has_term(negative: Any) -> bool:
    """Return whether a negative is a term of the prediction, and not only read by the attention."""
    return negative.attention is None or negative.scale is not None
