"""Guard one run of a sampler: look at predicted images of due steps, and push later predictions away from negatives."""

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
"""Parts of the names of samplers that choose their own steps and ignore the given noise levels."""


class Run:
    """One guarded run of a sampler.

    Args:
        batch: the guard of the run's batch of images, a ``Batch`` or an ``InProcess``.
        sampler: the sampler, from ComfyUI's guider.
        sigmas: the noise levels of the run.
        guider: ComfyUI's guider of the run; its ``conds`` and ``cfg`` tell whether there is guidance.
        clip: text encoder for negatives.
        vae: decoder of predictions; None to use the latent format's colours.
        given: ``latent_image``, ``denoise_mask`` and ``seed`` of the run.
        attending: access to the model's cross-attention; None to create one.

    Attributes:
        drawn_by: id of the node that samples, and the index of its list item; None if ComfyUI does not tell.
        timeline: per looked-at step, the pictures of all images, covered as users may see them.
        held: per looked-at step, the indices of the images that are steered afterwards.
        delivered: the finished pictures after the final look; empty before it.
        judged: the finished pictures that the run itself had judged; None if only a *Final Look* node does so.
        attempts: per image, how many times it was generated.
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
        """Begin to guard the batch.

        Raises:
            Withheld: the guard could not begin or the policy refuses the request, and the images are withheld.
        """
        self.batch.open(self._progress.total)

    @property
    def allowed(self) -> tuple[str, ...]:
        """Per image, how ComfyUI's own previews may show it: ``withhold``, ``blur`` or ``allow``."""
        return tuple(self.batch.user_previews)

    @property
    def cfg(self) -> float:
        """The guidance scale; 1 if the guider has no negative prompt."""
        return host.cfg(self._guider)

    @property
    def effective(self) -> bool:
        """Whether a negative can change the images; the mode ``replace`` needs a guidance scale other than 1."""
        return self.batch.mode in {"separate", "attention"} or not math.isclose(self.cfg, 1.0)

    def called_back(self, model: Any, step: int, x0: Tensor, sigmas: Tensor) -> None:
        """Handle the sampler's callback of a step: look at its predicted images if that is due.

        Raises:
            Withheld: the images will be withheld anyway, so the run need not go on.
        """
        try:
            self._take()  # a step has begun, even if its first evaluation was taken for one of the step before
            sigma = float(sigmas[step]) if self._progress.total is not None else self._sigma
            done = self._progress.called_back(step, sigma)
            self._last = (step, x0)
            if self.batch.due(step, done):
                self._look(model, step, done, sigma, x0)
        except Exception as error:  # noqa: BLE001 (the look is missed, and the run goes on)
            self.batch.missed(error)
        self._end_if_closed()

    def conditioned(self, executor: Any, model: Any, conds: Any, x: Tensor, sigma: Tensor, options: Any) -> Any:
        """Evaluate the model by ComfyUI's ``executor``, and steer in the cross-attention in the mode ``attention``."""

        def evaluate(with_options: Any) -> Any:
            return executor(model, conds, x, sigma, with_options)

        if self.batch.mode != "attention" or self._asks:
            return evaluate(options)
        # The hook after guidance counts this evaluation; here, a copy of the progress tells whether it begins a step.
        if copy(self._progress).begins(float(sigma.flatten()[0])) or self._own_steps:
            self._take()
        if not self._active:
            return evaluate(options)
        prompt = getattr(self._guider, "conds", {}).get("positive")
        place = next((index for index, cond in enumerate(conds) if cond is not None and cond is prompt), None)
        if place is None:
            return evaluate(options)  # the prompt is not evaluated here: perhaps only the unconditional is
        made, failure = self._attending.evaluated(evaluate, options, self._active, self._context, place)
        self._attended = failure is None
        return made

    def _context(self, text: str) -> Tensor:
        context: Tensor = self._encoded[text][0][0]
        return context

    def post_cfg(self, args: dict[str, Any]) -> Tensor:
        """Return the guided prediction, pushed away from the negatives; ComfyUI calls this after guidance."""
        self._sigma = float(args["sigma"].flatten()[0])  # the callback of a step follows its first evaluation
        if self._progress.begins(self._sigma) or self._own_steps:  # these samplers' steps differ in length
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
        """Handle the end of sampling: make the look that is still missing, if any.

        Raises:
            Withheld: the guard failed, and the images are withheld whatever they show.
        """
        if self.batch.owes_a_look() and self._last is not None:
            step, x0 = self._last
            step += step in self.timeline  # for a step that it has answered, the service repeats its answer
            try:
                self._look(model, step, 1.0, None, x0, ended=True)
            except Exception as error:  # noqa: BLE001 (the final look makes up for it, or does not)
                self.batch.missed(error)
        self._end_if_closed()

    def settle(self, shown: Sequence[Image]) -> None:
        """Make the final look at finished pictures, unless the run itself has made it."""
        if self.judged is None:
            self.batch.settle(shown)

    def shows_other(self, shown: Sequence[Image]) -> bool:
        """Return whether these pictures differ from those that the run itself had judged: a later node changed them."""
        return self.judged is not None and any(
            one.tobytes() != other.tobytes() for one, other in zip(self.judged, shown)
        )

    def second_chances(self, made: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """Have the finished images judged, and generate those again whose verdict is ``retry``.

        Do nothing if the policy or the host does not allow retries; a *Final Look* node judges the images then.

        Args:
            made: the finished latents.
            draw: repeats the run from the same noise.

        Returns:
            The latents to deliver, in which successful retries have replaced the rows of their images.
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
        """Reset the progress for another attempt at some images of the batch, and apply their new negatives."""
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
        """Encode the batch's current negatives, to take effect at the next step; return them by image index."""
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
        d_u = args["uncond_denoised" if guided else "cond_denoised"]  # if unguided, the only prediction
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
    """Group the indices of images by the words and scale of their negatives; leave out negatives without a term."""
    alike: dict[tuple[str, float], list[int]] = {}
    for index, negative in active.items():
        if _has_term(negative):
            alike.setdefault((negative.text, float(negative.scale or 0.0)), []).append(index)
    return alike


def _has_term(negative: Any) -> bool:
    """Return whether a negative adds a term to the prediction, and does not steer in the attention only."""
    return negative.attention is None or negative.scale is not None
