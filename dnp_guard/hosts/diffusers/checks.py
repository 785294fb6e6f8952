"""Check, before a pipeline is called, whether it can be guarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusers.hooks.hooks import StateManager

from dnp_guard.errors import CannotSteer, DnpGuardError
from dnp_guard.hosts.diffusers import prediction

if TYPE_CHECKING:
    from dnp_guard.guard import Guard
    from dnp_guard.preview.probe import Probe


def check(pipe: Any) -> None:
    """Check, before a pipeline is called, that it denoises images itself with a known scheduler.

    Raises:
        CannotSteer: the pipeline only calls other pipelines, has no scheduler, or has one that is not known.
    """
    name = type(pipe).__name__
    inner = [key for key, value in vars(pipe).items() if hasattr(value, "components") and callable(value)]
    if inner:
        raise CannotSteer(
            f"{name} only calls other pipelines, its {' and '.join(inner)}",
            hint=f"Attach the guard to the one that denoises: pipe.{inner[-1]}.callback_on_step_end = guard.",
        )
    schedulers = {key: value for key, value in vars(pipe).items() if hasattr(value, "set_timesteps")}
    if not schedulers:
        raise CannotSteer(
            f"{name} has no scheduler, whose steps the guard looks at", hint="Guard the pipeline that denoises."
        )
    if "scheduler" in schedulers or len(schedulers) == 1:
        prediction.check(schedulers["scheduler" if "scheduler" in schedulers else next(iter(schedulers))])


def probe_for(guard: Guard, pipe: Any) -> Probe | None:
    """Return the guard's probe, which tells from latents when to query; None if the policy uses none.

    Raises:
        CannotSteer: the probe was made for the latents of another autoencoder.
    """
    probe = guard.probe
    if probe is not None:
        try:
            probe.check_space(pipe.vae)
        except DnpGuardError as error:
            raise CannotSteer(error.message, hint=error.hint) from error
    return probe


def check_caches(part: Any) -> None:
    """Check that a denoiser's cache keeps the guard's extra evaluation apart from the pipeline's own, by a name.

    Raises:
        CannotSteer: the cache does not keep them apart, as with Pyramid Attention Broadcast and FasterCache; or it
            finds entries by a memory address, at which there can be another negative by then, as with TextKVCache.
    """
    for module in part.modules() if hasattr(part, "modules") else ():
        for name, hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).items():
            apart = any(isinstance(value, StateManager) for value in vars(hook).values())
            if getattr(hook, "_is_stateful", False) and (not apart or name.startswith("text_kv_cache")):
                raise CannotSteer(
                    f"its denoiser's cache ({name.split('/')[0]}) takes a negative's evaluation for the call's own",
                    hint="Use FirstBlockCache, TaylorSeer, MagCache or SeaCache, or disable_cache().",
                )
