"""Guard a ComfyUI model: wrap the sampler runs that use it, and steer them away from negatives after guidance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import host, inprocess
from .attending import Attending, wraps_conditions
from .batch import Batch, Withheld
from .client import Client
from .counts import COUNTS
from .run import Run
from .runs import RUNS
from .service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .settings import Settings

KEY = "dnp_guard"
_SERVICE = Service()


class Guarding:
    """A guard of every sampler run that uses a model patched by it.

    Args:
        settings: the settings of the guard.
        policy: name of a policy to apply on top of the operator's own; empty for none.
        clip: text encoder for negatives.
        vae: decoder of predictions; None to use the latent format's colours.
        node: id of the *DNP Guard* node in its workflow.

    Raises:
        Withheld: the settings name a backend in process, but its package is not installed.
    """

    def __init__(self, settings: Settings, policy: str, clip: Any, vae: Any, node: str) -> None:
        self._settings, self._policy = settings, policy
        self._clip, self._vae = clip, vae
        self._node = node
        self._run: Run | None = None
        if settings.vlm and not inprocess.available():
            raise Withheld("DNP Guard: vlm is set, but dnp_guard is not installed in ComfyUI's environment.")

    def patched(self, model: Any) -> Any:
        """Return a clone of a model that this guard watches, in place of any earlier guard.

        Raises:
            Withheld: this version of ComfyUI cannot wrap a sampler run.
        """
        if not host.wraps_sampling(model):
            raise Withheld("DNP Guard needs a ComfyUI whose runs can be wrapped (0.3.13 or later). Update ComfyUI.")
        from comfy.patcher_extension import WrappersMP  # noqa: PLC0415 (ComfyUI's own)

        clone = model.clone()
        clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
        clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, self.outer_sample)
        if wraps_conditions():
            clone.remove_wrappers_with_key(WrappersMP.CALC_COND_BATCH, KEY)
            clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, self.calc_cond_batch)
        after = clone.model_options.get("sampler_post_cfg_function", [])
        others = [hook for hook in after if not isinstance(getattr(hook, "__self__", None), Guarding)]
        clone.model_options["sampler_post_cfg_function"] = others
        clone.set_model_sampler_post_cfg_function(self.post_cfg)
        return clone

    def outer_sample(
        self,
        executor: Any,
        noise: Any,
        latent_image: Any,
        sampler: Any,
        sigmas: Any,
        denoise_mask: Any = None,
        callback: Any = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Guard a whole sampler run; ComfyUI calls this in place of ``executor``, with its arguments.

        Raises:
            Withheld: the images are withheld, because the guard failed or the policy refuses the request.
        """
        guider = executor.class_obj
        seed = kwargs.get("seed", args[1] if len(args) > 1 else None)
        run_of = {"seed": seed, "scheduler": _name(sampler), "guidance_scale": host.cfg(guider)}
        about = {"host": {"name": "comfyui", "version": host.version(), "target": type(guider).__name__}}
        about["run"] = {key: value for key, value in run_of.items() if value is not None}
        # Only a run that finishes its images, and can decode them, can judge them and generate them again.
        again = self._vae is not None and math.isclose(float(sigmas[-1]), 0.0)
        attending = Attending(guider.model_patcher)
        able: dict[str, Any] = {"again": again, "attention": attending.shown}
        able["brought"] = _own_pictures(guider, latent_image, noise, sigmas, self._vae)
        batch = batch_for(self._settings, self._policy, [""] * noise.shape[0], about, **able)
        given = {"latent_image": latent_image, "denoise_mask": denoise_mask, "seed": seed}
        run = Run(batch, sampler, sigmas, guider, self._clip, self._vae, given, attending)
        model = guider.model_patcher.model

        def looked(step: int, x0: Any, x: Any, total: int) -> None:
            run.called_back(model, step, x0, sigmas)
            if callback is not None:
                callback(step, host.covered(x0, run.allowed), host.covered(x, run.allowed), total)

        def draw() -> Any:
            made = executor(noise, latent_image, sampler, sigmas, denoise_mask, looked, *args, **kwargs)
            run.sampled(model)
            return made

        try:
            run.start()
            RUNS.begin(self._node, run, (self._settings, self._policy))
            self._run = run
            redraw = host.repeated(guider, draw)
            made = host.remembered(run.second_chances(draw(), redraw))
        except BaseException as error:
            COUNTS.update(map(batch.decision, range(run.images)) if isinstance(error, Withheld) else ())
            RUNS.abandon(self._node, run)
            raise
        finally:
            self._run = None
        return made

    def calc_cond_batch(self, executor: Any, model: Any, conds: Any, x: Any, timestep: Any, options: Any) -> Any:
        """Steer an evaluation of the model; ComfyUI calls this in place of ``executor``, with its arguments."""
        if self._run is None:
            return executor(model, conds, x, timestep, options)
        return self._run.conditioned(executor, model, conds, x, timestep, options)

    def post_cfg(self, args: dict[str, Any]) -> Any:
        """Return the guided prediction after steering; ComfyUI calls this after classifier-free guidance."""
        return args["denoised"] if self._run is None else self._run.post_cfg(args)


def batch_for(
    settings: Settings,
    policy: str,
    prompts: list[str],
    about: dict[str, dict[str, Any]],
    *,
    again: bool = False,
    attention: bool | None = None,
    brought: Callable[[], Sequence[Sequence[Any]]] | None = None,
) -> Any:
    """Return the guard of one batch: an ``InProcess`` if a backend is set, otherwise a ``Batch`` that asks the service.

    Args:
        settings: the settings of the guard.
        policy: name of a policy to apply on top of the operator's own; empty for none. The service gets it only if
            the settings name no policy.
        prompts: one prompt per image.
        about: the fields ``host`` and ``run`` of the audit record.
        again: whether the run can generate single images of the batch again after the final look.
        attention: whether steering in attention space was shown to work; None if the host cannot steer there.
        brought: returns the request's input pictures (to edit or inpaint) as lists of frames; None without any.
    """
    able: dict[str, Any] = {"again": again, "attention": attention, "brought": brought}
    if settings.vlm:
        guard = inprocess.guard_for(settings.policy or policy, settings.vlm, settings.audit)
        return inprocess.InProcess(guard, policy if settings.policy else "", prompts, about, **able)
    client = Client(settings.url, settings.token or None)
    _SERVICE.ensure(client, settings.start, settings.start_s)
    stricter = settings if settings.policy or not policy else _with(settings, policy)
    return Batch(client, stricter, prompts, about, **able)


def _own_pictures(
    guider: Any, latent_image: Any, noise: Any, sigmas: Any, vae: Any
) -> Callable[[], Sequence[Sequence[Any]]] | None:
    """Return a function that decodes the pictures that a run starts from or refers to; None if there are none.

    If the latents have an unknown form, the function raises. It is called only if the policy asks about the pictures.
    """
    try:
        start = None if host.keeps_noise(noise, sigmas) else latent_image
        own = host.brought(guider, start)
    except Exception as error:  # noqa: BLE001 (the returned function raises it, where the guard handles it)
        fault = error

        def undecodable() -> Sequence[Sequence[Any]]:
            raise fault

        return undecodable
    return (lambda: host.shown_of(own, vae, guider.model_patcher.model)) if own else None


def in_force(settings: Settings, policy: str) -> str:
    """Return digests that identify the service's current policy and model; empty if the service does not tell.

    Args:
        settings: the settings of the guard.
        policy: name of a policy to apply on top of the service's own if the settings name none; empty for none.
    """
    return Client(settings.url, settings.token or None).judges(settings.policy or policy)


def _with(settings: Settings, policy: str) -> Settings:
    from dataclasses import replace  # noqa: PLC0415

    return replace(settings, policy=policy)


def _name(sampler: Any) -> str:
    return getattr(getattr(sampler, "sampler_function", sampler), "__name__", type(sampler).__name__)
