"""Run a call of a pipeline under a guard."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from dnp_guard.errors import CannotSteer
from dnp_guard.generation.redrawing import finished
from dnp_guard.generation.state import Request
from dnp_guard.hosts.diffusers.asking.recording import Recording
from dnp_guard.hosts.diffusers.call import Call
from dnp_guard.hosts.diffusers.input_pictures import ask_inputs
from dnp_guard.hosts.diffusers.redrawn import Redrawn
from dnp_guard.hosts.diffusers.request import batch_of, host_of, run_of
from dnp_guard.hosts.diffusers.showing.caller_view import covering, covering_latents
from dnp_guard.hosts.diffusers.showing.frames import FRAMES
from dnp_guard.hosts.diffusers.showing.output import Output

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dnp_guard.guard import Guard

_KINDS = ("pil", "np", "pt", "latent")


def guarded_call(
    guard: Guard, pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run ``call(pipe, *args, **kwargs)`` under a guard.

    Raises:
        CannotSteer: no negative prompt can take effect in this call.
        RequestRefused: the policy does not allow so many questions, or refuses a picture in the call's arguments.
    """
    try:
        given, accepted = read_arguments(pipe, call, args, kwargs)
    except TypeError:
        return call(pipe, *args, **kwargs)  # the pipeline itself best reports what is wrong with its arguments
    if kwargs.get("callback_on_step_end") is guard:
        kwargs, given = ({**arguments, "callback_on_step_end": None} for arguments in (kwargs, given))
    kind = given.get("output_type") or "pil"
    if kind not in _KINDS:
        raise CannotSteer(
            f"{type(pipe).__name__} cannot be guarded with output_type {kind!r}",
            hint=f"Use one of {', '.join(_KINDS)}.",
        )
    guarded = begun(guard, Recording(pipe, call, given, accepted, encoded=guard.negatives))
    # A callback may be passed by position.
    kwargs, args = {**dict(zip(list(inspect.signature(call).parameters)[1:], args, strict=False)), **kwargs}, ()
    for name, cover in (("callback_on_step_end", covering), ("callback", covering_latents)):
        if (own := kwargs.get(name)) is not None:
            if hasattr(own, "tensor_inputs"):  # diffusers only reads it from its own callback objects
                kwargs = {**kwargs, "callback_on_step_end_tensor_inputs": own.tensor_inputs}
            kwargs = {**kwargs, name: cover(own, lambda: guarded.driver.user_previews, guarded.aside)}
    asked = kwargs.pop("output", None) if is_modular(pipe) else None
    try:
        try:
            guarded.install()
            result = call(pipe, **kwargs)
        finally:
            guarded.remove()
        guarded.check_steps()
        redraws = Redrawn(guarded, call, kwargs, kind)
        output, outcomes = finished(guarded.driver, Output(result, kind, guarded), redraws)
        guard.finished(guarded.driver)
        delivered = output.delivered(outcomes, guarded.driver.policy)
    except BaseException as error:
        guarded.abandon(type(error).__name__)
        raise
    if hasattr(delivered, "__dict__"):  # an output object or a state, not a tuple or an array
        delivered.dnp_guard = guarded.driver.report
    return delivered if asked is None else delivered.get(asked)


def is_modular(pipe: Any) -> bool:
    """Return whether a pipeline is a modular one, made of blocks whose inputs are the arguments of its call."""
    return hasattr(pipe, "_blocks")


def read_arguments(
    pipe: Any, call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments of a call, and the defaults of all arguments that the call takes, both by name.

    Raises:
        TypeError: the call does not take these arguments.
    """
    signature = inspect.signature(call)
    bound = signature.bind(pipe, *args, **kwargs)
    if is_modular(pipe):
        accepted = {block_input.name: block_input.default for block_input in pipe._blocks.inputs if block_input.name}  # noqa: SLF001 (its own)
        given = {name: value for name, value in bound.arguments.get("kwargs", {}).items() if name in accepted}
        state = bound.arguments.get("state")
        return {**(state.values if state is not None else {}), **given}, accepted
    bound.apply_defaults()
    given = dict(list(bound.arguments.items())[1:])
    more = next(
        (name for name, parameter in signature.parameters.items() if parameter.kind is parameter.VAR_KEYWORD), ""
    )
    empty = inspect.Parameter.empty
    accepted = {
        name: None if parameter.default is empty else parameter.default
        for name, parameter in list(signature.parameters.items())[1:]
    }
    return {**given, **given.pop(more, {})}, accepted


def begun(guard: Guard, recording: Recording, *, images: int | None = None, done: int = 0) -> Call:
    """Prepare to guard a call that begins, or that has already run some steps.

    Args:
        guard: the guard.
        recording: recording of the call.
        images: number of images in the batch; None to read it from the arguments.
        done: number of steps that the call has already run.

    Raises:
        CannotSteer: no negative prompt can take effect in this call.
        RequestRefused: the policy does not allow so many questions, or refuses a picture in the call's arguments.
    """
    pipe, given = recording.pipe, recording.given
    prompts, negatives, count = batch_of(type(pipe), given)
    if guard.policy.guidance.mode == "replace" and guard.policy.mode != "shadow":
        _check_one_negative(given)
    video = any("video" in name or name == "num_frames" for name in given)
    request = Request(
        images or count,
        host_of(pipe),
        prompts,
        run_of(pipe, given),
        shows=FRAMES if video else 1,
        draws_again=done == 0 and given.get("state") is None,
    )
    call = Call(guard, recording, request, negatives, done=done)
    ask_inputs(guard, call.driver, given, request.images)
    return call


def _check_one_negative(given: Mapping[str, Any]) -> None:
    for name in ("negative_prompt_2", "negative_prompt_3", "negative_prompt_4"):
        if given.get(name):
            raise CannotSteer(
                f"guidance mode 'replace' would drop {name}", hint=f"Use guidance mode 'separate', or no {name}."
            )
