"""Attach a guard to a pipeline: ``pipe.callback_on_step_end = guard``.

Diffusers reads ``callback_on_step_end`` only from the arguments of a call, and Python looks up ``__call__`` on the
class. So a data descriptor on ``DiffusionPipeline`` swaps the class of a guarded pipeline for a subclass of the same
name whose ``__call__`` is guarded, and swaps it back for ``None``.
"""

from __future__ import annotations

import copy
import warnings
from functools import cache, partial, wraps
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from diffusers.pipelines.pipeline_utils import DiffusionPipeline

from dnp_guard.audit.events import GuardAttached, GuardDetached
from dnp_guard.hosts.attachments import attached
from dnp_guard.hosts.diffusers.asking.recording import takes_time
from dnp_guard.hosts.diffusers.checks import check, probe_for
from dnp_guard.hosts.diffusers.guarded_call import guarded_call
from dnp_guard.hosts.diffusers.showing.decoding import decoder

if TYPE_CHECKING:
    from collections.abc import Callable

    from dnp_guard.guard import Guard

ATTRIBUTE = "callback_on_step_end"
_GUARD = "_dnp_guard"
_GUARDED: WeakSet[Any] = WeakSet()
"""All guarded pipelines, to warn about an unguarded pipeline that shares their parts."""


def put_attribute(guards: type) -> None:
    """Give every pipeline the attribute ``callback_on_step_end``; a second call changes nothing.

    From then on, making an unguarded pipeline from a guarded one's parts causes a warning.

    Args:
        guards: class of the values that the attribute accepts.
    """
    if isinstance(DiffusionPipeline.__dict__.get(ATTRIBUTE), _Attribute):
        return
    setattr(DiffusionPipeline, ATTRIBUTE, _Attribute(guards))
    plain = DiffusionPipeline.register_modules

    @wraps(plain)
    def register_modules(self: DiffusionPipeline, **modules: Any) -> None:
        plain(self, **modules)
        _warn_of_shared(self, modules)

    DiffusionPipeline.register_modules = register_modules


def _warn_of_shared(pipe: DiffusionPipeline, modules: dict[str, Any]) -> None:
    """Warn that a pipeline made of a guarded one's parts (``from_pipe``, ``**components``) has no guard itself."""
    for guarded in list(_GUARDED):
        denoisers = [part for part in vars(guarded).values() if takes_time(part)]
        if guarded is not pipe and any(part is denoiser for part in modules.values() for denoiser in denoisers):
            warnings.warn(
                f"this {type(pipe).__name__} is made of the parts of a guarded {type(guarded).__name__} and is not "
                "guarded itself: set its callback_on_step_end to the guard",
                stacklevel=4,
            )
            return


def attach(pipe: DiffusionPipeline, guard: Guard) -> Callable[[], None]:
    """Guard every later call of a pipeline; the guard takes the place of one that is already attached.

    Returns:
        A function that detaches the guard.

    Raises:
        CannotSteer: the pipeline cannot be steered.
    """
    return attached(pipe, guard, partial(guard_of, pipe), partial(_set, pipe))


def guard_of(pipe: DiffusionPipeline) -> Guard | None:
    """Return the guard that is attached to a pipeline, or None."""
    return pipe.__dict__.get(_GUARD)


def _set(pipe: DiffusionPipeline, guard: Guard | None) -> None:
    before = guard_of(pipe)
    if before is guard:
        return
    if guard is not None:
        check(pipe)
        decoder(pipe, getattr(pipe, "vae", None), guard.policy.preview.method, guard.preview_vae)
        probe_for(guard, pipe)
    target = {"name": "diffusers", "target": type(pipe).__name__}
    if before is not None:
        pipe.__class__ = type(pipe).__mro__[1]
        del pipe.__dict__[_GUARD]
        _GUARDED.discard(pipe)
        before.noted(GuardDetached(host=target))
    if guard is not None:
        pipe.__dict__[_GUARD] = guard
        kind: Any = type(pipe)
        pipe.__class__ = _guarded(kind)
        _GUARDED.add(pipe)
        guard.noted(GuardAttached(host=target))


def put_attribute_on_modular(guards: type) -> None:
    """Give every modular pipeline the attribute ``callback_on_step_end``.

    Args:
        guards: class of the values that the attribute accepts.
    """
    from diffusers.modular_pipelines.modular_pipeline import ModularPipeline  # noqa: PLC0415 (only used here)

    if not isinstance(ModularPipeline.__dict__.get(ATTRIBUTE), _Attribute):
        setattr(ModularPipeline, ATTRIBUTE, _Attribute(guards))


class _Attribute:
    """``callback_on_step_end`` of a pipeline: the attached guard, or None."""

    def __init__(self, guards: type) -> None:
        self._guards = guards

    def __get__(self, pipe: Any, owner: type) -> Any:
        return self if pipe is None else guard_of(pipe)

    def __set__(self, pipe: Any, value: Guard | None) -> None:
        if value is not None and not isinstance(value, self._guards):
            raise TypeError(
                f"callback_on_step_end = {value!r}: diffusers ignores this attribute unless it is a dnp_guard.Guard; "
                "pass an ordinary callback to the call, pipe(…, callback_on_step_end=…)"
            )
        _set(pipe, value)


@cache
def _guarded(kind: Any) -> type[DiffusionPipeline]:
    """Return a subclass of a pipeline class, of the same name, whose ``__call__`` is guarded; always the same one."""
    call = kind.__call__

    @wraps(call)
    def guarded(self: DiffusionPipeline, *args: Any, **kwargs: Any) -> Any:
        guard = guard_of(self)
        return call(self, *args, **kwargs) if guard is None else guarded_call(guard, self, call, args, kwargs)

    def new(_guarded_kind: Any, *args: Any, **kwargs: Any) -> Any:
        return kind(*args, **kwargs)  # a pipeline made by a guarded pipeline's class is not guarded itself

    def copied(self: DiffusionPipeline) -> DiffusionPipeline:
        return _made_of(type(self), self.__dict__)

    def deep_copied(self: DiffusionPipeline, memo: dict[int, Any]) -> DiffusionPipeline:
        memo[id(guard_of(self))] = guard_of(self)  # the copy has the same guard
        return _made_of(type(self), {key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})

    def reduced(self: DiffusionPipeline, _protocol: int) -> Any:
        warnings.warn(f"the pickled {kind.__name__} is not guarded: attach a guard where it is loaded", stacklevel=2)
        return object.__new__, (kind,), {key: value for key, value in self.__dict__.items() if key != _GUARD}

    copying = {"__new__": new, "__copy__": copied, "__deepcopy__": deep_copied, "__reduce_ex__": reduced}
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    return type(kind.__name__, (kind,), {"__call__": guarded, **copying, **names})


def _made_of(kind: Any, attributes: dict[str, Any]) -> DiffusionPipeline:
    made: DiffusionPipeline = object.__new__(kind)
    made.__dict__.update(attributes)
    _GUARDED.add(made)
    return made
