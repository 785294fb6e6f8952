"""The weaker form: ``pipe("…", callback_on_step_end=guard)``.

Diffusers calls the guard after each step and nothing more, so it starts after the first step, does not know prompts or
the user's negative, makes the final look at the last latents, and replaces those of an image that may not be delivered.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers.attach import guard_of
from dnp_guard.hosts.diffusers.call import Call
from dnp_guard.hosts.diffusers.families import family_of
from dnp_guard.hosts.diffusers.output import Output
from dnp_guard.hosts.diffusers.request import host_of

if TYPE_CHECKING:
    from dnp_guard.guard import Guard

_CALL = "_dnp_guard_call"


def after_step(guard: Guard, pipe: Any, step: int, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Take part in a call after one of its steps.

    Returns:
        Latents for diffusers to go on with where some were replaced; otherwise nothing.

    Raises:
        CannotSteer: at the first step, where no negative could take effect.
    """
    attached = guard_of(pipe)
    if attached is guard:
        return {}
    if attached is not None:
        raise CannotSteer("another guard is attached to this pipeline", hint="Detach it, or leave this argument out.")
    call: Call | None = pipe.__dict__.get(_CALL)
    if call is not None and (step == 0 or call.guard is not guard):  # left behind by a call that raised
        _end(pipe, call).abandon("the call ended early")
        call = None
    if "latents" not in callback_kwargs:
        raise CannotSteer(
            "the guard is not shown the latents",
            hint="Name them in callback_on_step_end_tensor_inputs, or attach the guard to the pipeline.",
        )
    if call is None:
        latents = callback_kwargs["latents"]
        call = Call(guard, pipe, Request(latents.shape[0], host_of(pipe)), None, done=step + 1)
        pipe.__dict__[_CALL] = call
        call.install()
        _end_at_the_next_call(pipe, call)
    if step < pipe.num_timesteps - 1:
        return {}
    _end(pipe, call)
    latents = callback_kwargs["latents"]
    output = Output((latents,), "latent", pipe, family_of(pipe, guard.families), ended=call.ended)
    (delivered,) = output.delivered(call.finish(output.pictures))
    return {} if delivered is latents else {"latents": delivered}


def _end_at_the_next_call(pipe: Any, call: Call) -> None:
    """Clean up before the next call samples, should this one raise: whatever it is, it sets the timesteps first."""
    plain = call.scheduler.set_timesteps

    @wraps(plain)
    def set_timesteps(*args: Any, **kwargs: Any) -> Any:
        _end(pipe, call).abandon("the call ended early")
        return plain(*args, **kwargs)

    call.scheduler.set_timesteps = set_timesteps


def _end(pipe: Any, call: Call) -> Call:
    del pipe.__dict__[_CALL]
    call.scheduler.__dict__.pop("set_timesteps", None)
    call.remove()
    return call
