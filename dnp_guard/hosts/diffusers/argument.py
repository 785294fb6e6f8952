"""Guard a call by an argument, ``pipe("…", callback_on_step_end=guard)``, which is weaker than attaching the guard.

Diffusers calls the guard after each step, and at no other time. So the guard starts after the first step: it reads the
arguments in the stack frame of the call, and evaluates the denoiser once more to find where the prompt goes. In place
of the finished images, it queries the VLM about the last latents, and replaces those that must not be delivered.
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.hosts.diffusers.asking.recording import Recording
from dnp_guard.hosts.diffusers.attach import guard_of
from dnp_guard.hosts.diffusers.checks import check
from dnp_guard.hosts.diffusers.guarded_call import begun, read_arguments
from dnp_guard.hosts.diffusers.showing.output import Output

if TYPE_CHECKING:
    from types import FrameType

    from dnp_guard.guard import Guard
    from dnp_guard.hosts.diffusers.call import Call

_CALL = "_dnp_guard_call"


def after_step(guard: Guard, pipe: Any, step: int, callback_kwargs: dict[str, Any]) -> dict[str, Any]:
    """Guard a pipeline's call from its step callback, after one of its steps.

    Returns:
        The new ``latents`` for diffusers to go on with; empty if no image has to be replaced.

    Raises:
        CannotSteer: no negative prompt can take effect in this call; this is raised at the first step.
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
        check(pipe)
        given = _given(pipe, sys._getframe(1))  # noqa: SLF001 (there is no other way to read them)
        given, accepted = read_arguments(pipe, type(pipe).__call__, (), given)
        recording = Recording(pipe, type(pipe).__call__, given, accepted, before=False, encoded=guard.negatives)
        call = begun(guard, recording, images=callback_kwargs["latents"].shape[0], done=step + 1)
        try:
            call.begin_late()
        except BaseException as error:
            call.abandon(type(error).__name__)
            raise
        pipe.__dict__[_CALL] = call
        _end_at_the_next_call(pipe, call)
    if step < pipe.num_timesteps - 1:
        return {}
    _end(pipe, call)
    latents = callback_kwargs["latents"]
    output = Output((latents,), "latent", call)
    (delivered,) = output.delivered(call.finish(output.pictures), call.driver.policy)
    return {} if delivered is latents else {"latents": delivered}


def _given(pipe: Any, frame: FrameType | None) -> dict[str, Any]:
    """Return the arguments of the running call, by name, from its stack frame.

    Arguments that a pipeline overwrites by values of its own, such as embeddings and latents, are left out.

    Raises:
        CannotSteer: the guard was not called by the pipeline's own call, or the call has no prompt as text.
    """
    call = type(pipe).__call__
    code = inspect.unwrap(call).__code__
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    if frame is None:
        raise CannotSteer(
            "the arguments of this call, which are needed to encode a negative, cannot be read",
            hint="Attach the guard instead: pipe.callback_on_step_end = guard.",
        )
    local = frame.f_locals
    names = [name for name in list(inspect.signature(call).parameters)[1:] if name in local]
    computed = ("latents", "timesteps", "sigmas", "_embeds", "_mask", "callback")
    given = [name for name in names if not name.endswith(computed) and not name.startswith("callback")]
    if local.get("prompt") is None:
        raise CannotSteer(
            "this call has embeddings in place of a prompt, and its callback is not told which",
            hint="Attach the guard instead: pipe.callback_on_step_end = guard.",
        )
    return {name: local[name] for name in given}


def _end_at_the_next_call(pipe: Any, call: Call) -> None:
    """Clean up as soon as the next call sets its timesteps, in case this call ends by an error."""

    def set_timesteps(plain: Any, *args: Any, **kwargs: Any) -> Any:
        _end(pipe, call).abandon("the call ended early")
        return plain(*args, **kwargs)

    call.install({"set_timesteps": set_timesteps})


def _end(pipe: Any, call: Call) -> Call:
    del pipe.__dict__[_CALL]
    call.remove()
    return call
