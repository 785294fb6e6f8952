"""The object that a guard is attached to: a model for k-diffusion's samplers, with its text encoder and decoder."""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.audit.events import GuardAttached, GuardDetached
from dnp_guard.errors import CannotSteer
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers.asking.recording import random_state, replayed
from dnp_guard.hosts.kdiffusion.attending import reached
from dnp_guard.hosts.kdiffusion.generation import Generation
from dnp_guard.hosts.kdiffusion.guided import Guided
from dnp_guard.hosts.kdiffusion.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.kdiffusion.generation import Decode, Encode
    from dnp_guard.policy import Policy

_HOST = "k-diffusion"


class KDiffusion:
    """A model for k-diffusion's samplers, with the functions that a guard needs to show and steer it.

    ``guard.attach(KDiffusion(…))`` guards every later call of :meth:`sample`; without a guard, it samples as usual.

    Args:
        model: called by samplers as ``model(x, sigma, cond=…, uncond=…, cond_scale=…)``; returns the denoised image. A
            model without guidance takes only ``cond``.
        encode: encodes N texts as the conditioning that the model takes for ``uncond`` (for ``cond``, without
            guidance): a tensor [N, ...], a list of N entries, or a dict of these.
        decode: decodes latents [N, ...] to N pictures, RGB.
        denoise: the model without guidance, ``denoise(x, sigma, cond=…)``. If it is None, the model is evaluated with
            ``cond_scale=0`` instead, which costs twice as much; a model that counts its calls counts these, too.
        network: the UNet or other denoiser inside the model, for steering in its attention over the prompt. By default
            it is looked for in ``model`` and ``denoise``, if these are torch modules.
        name: name of the model for the audit record.

    Attributes:
        guard: the attached guard; None if there is none.
        model: the model, as given.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        *,
        encode: Encode,
        decode: Decode,
        denoise: Callable[..., Tensor] | None = None,
        network: torch.nn.Module | None = None,
        name: str = "",
    ) -> None:
        self.guard: Guard | None = None
        self.model, self._denoise = model, denoise
        self._networks = (network, model, denoise)
        self._encode, self._decode = encode, decode
        self._host = {"name": _HOST, "target": name or type(model).__name__}

    def guarded_by(self, guard: Guard | None) -> None:
        """Set the guard, or remove it with None, and record the change; users call ``guard.attach(…)`` instead."""
        before, self.guard = self.guard, guard
        if before is guard:
            return
        if before is not None:
            before.noted(GuardDetached(host=self._host))
        if guard is not None:
            guard.noted(GuardAttached(host=self._host))

    def sample(
        self,
        sampler: Callable[..., Tensor],
        x: Tensor,
        *args: Any,
        prompts: Sequence[str] = (),
        negative_prompts: Sequence[str] | None = None,
        seed: int | None = None,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        **kwargs: Any,
    ) -> list[Image]:
        """Run a sampler, guarded if a guard is attached, and decode its result.

        Args:
            sampler: the sampler, such as ``k_diffusion.sampling.sample_euler``.
            x: the noise to start from, [B, ...].
            *args: further positional arguments of the sampler, such as ``sigmas``.
            prompts: prompts for the audit record, one per image.
            negative_prompts: the user's negative prompts, one per image; guidance mode ``replace`` needs them.
            seed: seed for the audit record.
            extra_args: arguments that the sampler passes to the model.
            callback: the user's own callback, called after the guard's. If images are drawn again, it is called for
                those steps, too.
            **kwargs: further keyword arguments of the sampler.

        Returns:
            B pictures: unchanged, blurred, or replaced by a notice, as the policy requires.

        Raises:
            CannotSteer: no negative prompt can take effect in this run.
            RequestRefused: the policy does not allow so many questions.
        """
        extra = dict(extra_args or {})
        if self.guard is None:
            return self._decode(sampler(self.model, x, *args, extra_args=extra, callback=callback, **kwargs))
        sigmas, ends = _levels(sampler, x, args, kwargs)
        run = {"seed": seed, "scheduler": _name(sampler), "steps": len(sigmas) - 1 if sigmas else None}
        with self.generation(
            x.shape[0],
            sigmas,
            ends=ends,
            prompts=prompts,
            negative_prompts=negative_prompts,
            extra_args=extra,
            run={key: value for key, value in run.items() if value is not None},
            draws_again="noise_sampler" not in kwargs,  # it may hold noise of its own
        ) as (model, generation):

            def draw(steered: Guided) -> list[Image]:
                both = _both(generation, callback)
                return self._decode(sampler(steered, x.clone(), *args, extra_args=dict(extra), callback=both, **kwargs))

            def again() -> list[Image]:
                generation.begin_again(Progress(sigmas, ends))
                with replayed(before):
                    return draw(Guided(self.model, generation, self._denoise))

            before = random_state()
            made = draw(model)
            return generation.finish(lambda: made, again)

    @contextmanager
    def generation(
        self,
        images: int,
        sigmas: Sequence[float] = (),
        *,
        ends: tuple[float, float] | None = None,
        prompts: Sequence[str] = (),
        negative_prompts: Sequence[str] | None = None,
        extra_args: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        draws_again: bool = False,
    ) -> Iterator[tuple[Guided, Generation]]:
        """Guard a run of a sampler that the caller starts inside the ``with`` block.

        :meth:`sample` guards and starts a run in one call.

        Args:
            images: B, the size of the batch.
            sigmas: the noise levels of this run; empty if the sampler chooses its own steps.
            ends: the highest and the lowest noise level, if there are no ``sigmas``.
            prompts: prompts for the audit record, one per image.
            negative_prompts: the user's negative prompts, one per image; guidance mode ``replace`` needs them.
            extra_args: arguments that the sampler passes to the model.
            run: settings of the run for the audit record.
            draws_again: whether the caller can run the sampler again, for images to which the policy gives a retry.

        Yields:
            The model to pass to the sampler, and the guarded run. Pass the run's ``callback`` to the sampler, and call
            its ``finish`` with the finished pictures; if the block ends without ``finish``, the run is recorded as
            abandoned.

        Raises:
            CannotSteer: no guard is attached, or no negative prompt can take effect in this run.
            RequestRefused: the policy does not allow so many questions.
        """
        if self.guard is None:
            raise CannotSteer("no guard is attached to this KDiffusion", hint="guard.attach(…) it first.")
        given = extra_args or {}
        _check(self.guard.policy, given)
        attention = reached(self.guard.policy, self._networks, given.get("cond"))
        scale = {"guidance_scale": given["cond_scale"]} if "cond_scale" in given else {}
        request = Request(images, self._host, tuple(prompts), {**(run or {}), **scale}, draws_again=draws_again)
        progress = Progress([float(sigma) for sigma in sigmas], ends)
        generation = Generation(
            self.guard,
            request,
            progress,
            self._encode,
            self._decode,
            negative_prompts,
            attention=attention,
            guided=given.get("uncond") is not None and given.get("cond_scale", 1.0) != 1.0,
        )
        try:
            yield Guided(self.model, generation, self._denoise), generation
        except BaseException as error:
            generation.abandon(type(error).__name__)
            raise
        generation.abandon("the run ended without pictures")


def _check(policy: Policy, extra: Mapping[str, Any]) -> None:
    """Raise :class:`CannotSteer` for guidance mode ``replace`` if the run has no unconditional slot in use."""
    if policy.mode == "shadow" or policy.guidance.mode != "replace":
        return
    if extra.get("uncond") is None or extra.get("cond_scale", 1.0) == 1.0:
        raise CannotSteer(
            "guidance mode 'replace' needs an unconditional slot in use: uncond=… and a cond_scale other than 1",
            hint="Sample with guidance, or use guidance mode 'separate'.",
        )


def _levels(
    sampler: Callable[..., Tensor], x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[float], tuple[float, float] | None]:
    """Read the noise levels from a sampler's arguments: all of them, or else the highest and the lowest if given."""
    try:
        given = inspect.signature(sampler).bind_partial(None, x, *args, **kwargs).arguments
    except TypeError:
        return [], None  # the sampler itself best reports what is wrong with its arguments
    sigmas = given.get("sigmas")
    if sigmas is not None:
        return torch.as_tensor(sigmas).tolist(), None
    if "sigma_max" in given and "sigma_min" in given:
        return [], (float(given["sigma_max"]), float(given["sigma_min"]))
    return [], None


def _name(sampler: Callable[..., Tensor]) -> str:
    return getattr(getattr(sampler, "func", sampler), "__name__", type(sampler).__name__)


def _both(
    generation: Generation, callback: Callable[[dict[str, Any]], object] | None
) -> Callable[[dict[str, Any]], None]:
    """Combine the guard's callback with the user's own, which sees only as much as the policy allows."""

    def both(info: dict[str, Any]) -> None:
        generation.callback(info)
        if callback is not None:
            callback(generation.shown(info))

    return both
