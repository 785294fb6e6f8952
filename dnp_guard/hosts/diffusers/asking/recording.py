"""Record a pipeline's call, its arguments and the outputs of its parts, so that it can be run again on a copy.

A copy of the pipeline runs the pipeline's own ``__call__`` and leaves no trace. The caller's generators are cloned as
they were when the call began, and the global random numbers are restored. Encoders answer from the recording, the
denoiser is not evaluated, the scheduler is a copy, and the caller's callbacks are not called.
"""

from __future__ import annotations

import copy
import inspect
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from dnp_guard.hosts.diffusers.asking import arguments
from dnp_guard.hosts.diffusers.asking.standin import CALL, StandIn, of_scheduler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from dnp_guard.hosts.diffusers.asking.standin import Answer
    from dnp_guard.hosts.encoded import Encoded

RECORDED = (CALL, "encode", "generate", "get_image_features", "get_text_features")
"""Functions of a pipeline's parts (denoiser, encoders, …) whose outputs are recorded."""

_CALLBACKS = ("callback", "callback_on_step_end", "callback_steps", "callback_on_step_end_tensor_inputs")
_OF_TIME = frozenset({"sigma", "t", "time", "timestep", "timesteps"})


class Reached(BaseException):
    """Ends the run of a pipeline's copy as soon as the run has reached the point that matters."""


@dataclass(frozen=True, slots=True)
class _Answer:
    name: str
    function: str
    given: Any
    output: Any


class Recording:
    """One recorded call of a pipeline, which can be run again on a copy of the pipeline.

    Args:
        pipe: the pipeline.
        call: the pipeline's ``__call__``, unguarded.
        given: arguments of the call, by name.
        accepted: defaults of all arguments that the call takes, by name.
        before: whether the call has yet to begin, so that its random numbers can be drawn again.
        encoded: negative prompts that were encoded beforehand; if there are any, no other words are put into the call.

    Attributes:
        parts: the pipeline's modules and other callables, by name.
        schedulers: the pipeline's schedulers, by name.
        timed: names of the parts that take a timestep, and so are evaluated at every step.
        draws_again: whether a copy draws the call's own noise. It cannot if the caller passed no generator, because all
            threads share the global random numbers; it then draws other noise from a generator of its own.
        rewinds: whether a copy uses the global random numbers as they were when the call began.
    """

    def __init__(
        self,
        pipe: Any,
        call: Callable[..., Any],
        given: Mapping[str, Any],
        accepted: Mapping[str, Any],
        *,
        before: bool = True,
        encoded: Encoded | None = None,
    ) -> None:
        self.pipe = pipe
        self.encoded: Encoded = encoded or {}
        self.given: dict[str, Any] = arguments.kept(dict(given))  # some pipelines write into their lists
        self.parts = {name: part for name, part in vars(pipe).items() if _evaluates(part)}
        self.timed = [name for name, part in self.parts.items() if takes_time(part)]
        self.schedulers = {name: part for name, part in vars(pipe).items() if _steps(part)}
        self._call = call
        self._accepted = accepted
        self.draws_again = before and (bool(list(_generators(self.given))) or not self.accepts("generator"))
        self.rewinds = False
        self._random = random_state() if before else None
        self._generators = (
            {id(generator): _cloned(generator) for generator in _generators(self.given)} if before else {}
        )
        self._answers: list[_Answer] = []
        self._blocks: Any = None
        self._stateful = {name: copy.deepcopy(part) for name, part in vars(pipe).items() if _keeps_state(part)}

    def accepts(self, name: str) -> bool:
        """Return whether the call has an argument of that name."""
        return name in self._accepted

    def default(self, name: str) -> Any:
        """Return the default of an argument; None if it has none."""
        return self._accepted[name]

    def recorder(self, name: str, function: str) -> Answer:
        """Return a wrapper for a function of a part (such as the denoiser) that records the function's outputs."""

        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            output = plain(*args, **kwargs)
            self.keep(name, function, args, kwargs, output)
            return output

        return answer

    def keep(self, name: str, function: str, args: Any, kwargs: Any, output: Any) -> None:
        """Record the output of a part's function, with its arguments."""
        self._answers.append(_Answer(name, function, (args, kwargs), arguments.kept(output)))

    def known(self, name: str, function: str) -> Answer:
        """Return a replacement for a function of a part: it repeats recorded outputs, and calls the part otherwise.

        A part that is evaluated at every step, such as a ControlNet, repeats its outputs of the first step, so that a
        copy differs only in its prompt.
        """
        in_step = function == CALL and name in self.timed
        asked = 0

        def answer(plain: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal asked
            recorded = [record for record in self._answers if (record.name, record.function) == (name, function)]
            if in_step and recorded:
                asked += 1
                return arguments.kept(recorded[(asked - 1) % len(recorded)].output)
            for record in recorded:
                if not arguments.differing(record.given, (args, kwargs)):
                    return arguments.kept(record.output)
            return self.recorder(name, function)(plain, *args, **kwargs)

        return answer

    def run(self, change: Mapping[str, Any], answers: Mapping[str, Mapping[str, Answer]]) -> Any:
        """Run the call on a copy of the pipeline.

        Args:
            change: arguments in place of the recorded ones.
            answers: functions that answer in place of a part's own, by names of part and function; parts that are not
                named answer from the recording.

        Returns:
            The call's result; None if an answer ended the call by raising ``Reached``.
        """
        pipe = self._copy(answers)
        given = self._fresh({**self.given, **change})
        if not self.draws_again and self.accepts("generator"):
            given["generator"] = torch.Generator().manual_seed(0)
        given |= {name: self.default(name) for name in _CALLBACKS if name in given and self.accepts(name)}
        with torch.no_grad(), self._as_it_began():
            try:
                return self._call(pipe, **given)
            except Reached:
                return None

    @contextmanager
    def once_more(self, kwargs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the arguments to make the recorded call a second time, inside a ``with`` block.

        Generators are in the state that they had when the call began, and so are the global random numbers inside the
        block.

        Args:
            kwargs: the arguments with which the call was made; callbacks and other functions are taken from here.
        """
        own = {
            name: value
            for name, value in self.given.items()
            if name in kwargs and not name.startswith("callback") and not callable(value)
        }
        with replayed(self._random):
            yield self._fresh({**kwargs, **own})

    def _copy(self, answers: Mapping[str, Mapping[str, Answer]]) -> Any:
        pipe = object.__new__(type(self.pipe))
        vars(pipe).update(vars(self.pipe))
        vars(pipe).update(copy.deepcopy(self._stateful))
        for name, part in self.parts.items():
            own = answers.get(name) or {function: self.known(name, function) for function in RECORDED}
            vars(pipe)[name] = StandIn(part, {"cache_context": lambda *_, **__: nullcontext(), **own})
        for name, scheduler in self.schedulers.items():
            vars(pipe)[name] = of_scheduler(copy.deepcopy(scheduler), answers.get(name, {}))
        if hasattr(self.pipe, "_blocks"):  # the blocks of a modular pipeline show progress themselves
            self._blocks = self._blocks or copy.deepcopy(self.pipe._blocks)  # noqa: SLF001 (it has no other name)
            vars(pipe)["_blocks"] = self._blocks
            pipe.set_progress_bar_config(disable=True)
        vars(pipe)["_progress_bar_config"] = {"disable": True}
        vars(pipe)["maybe_free_model_hooks"] = lambda: None
        return pipe

    def _fresh(self, value: Any) -> Any:
        """Return an argument with its generators cloned, in the state that they had when the call began."""
        if isinstance(value, torch.Generator):
            return _cloned(self._generators.get(id(value), value))
        if type(value) is dict:
            return {name: self._fresh(item) for name, item in value.items()}
        return [self._fresh(item) for item in value] if type(value) is list else value

    @contextmanager
    def _as_it_began(self) -> Iterator[None]:
        """Restore the global random numbers after a ``with`` block; with ``rewinds``, begin it with the call's own."""
        now = random_state()
        if self.rewinds and self._random is not None:
            _set_random_state(self._random)
        try:
            yield
        finally:
            if not torch.equal(now[0], torch.get_rng_state()) or now[1] is not None:
                _set_random_state(now)


@contextmanager
def replayed(random: tuple[Any, Any] | None) -> Iterator[None]:
    """Set the global random numbers to a state from :func:`random_state`, and restore them afterwards."""
    now = random_state()
    if random is not None:
        _set_random_state(random)
    try:
        yield
    finally:
        _set_random_state(now)


def takes_time(part: Any) -> bool:
    """Return whether a part takes a timestep, and so is evaluated at every step."""
    inner = getattr(part, "_orig_mod", part)
    try:
        names = inspect.signature(getattr(inner, "forward", inner)).parameters
    except (TypeError, ValueError):
        return False
    return any(map(is_time, names))


def is_time(name: str) -> bool:
    """Return whether an argument of that name is a timestep or a noise level, such as ``t`` or ``sigma``."""
    return name in _OF_TIME or name.startswith("timestep")


def _evaluates(part: Any) -> bool:
    """Return whether a part can be a denoiser or an encoder, rather than a tokenizer or a processor."""
    if isinstance(part, torch.nn.Module):
        return True
    made_by = type(part).__module__.partition(".")[0]
    return callable(part) and made_by not in {"diffusers", "transformers", "builtins", "functools"} and takes_time(part)


def _steps(part: Any) -> bool:
    return hasattr(part, "step") and hasattr(part, "set_timesteps")


def _keeps_state(part: Any) -> bool:
    """Return whether a part is a guider, whose state a call changes."""
    return type(part).__module__.startswith("diffusers.guiders")


def _generators(value: Any) -> Iterator[torch.Generator]:
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _generators(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _generators(item)


def _cloned(generator: torch.Generator) -> torch.Generator:
    clone = torch.Generator(generator.device)
    clone.set_state(generator.get_state())
    return clone


def random_state() -> tuple[Any, Any]:
    """Return the state of the global random numbers, including CUDA's if it is in use."""
    on_cuda = torch.cuda.is_available() and torch.cuda.is_initialized()
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if on_cuda else None


def _set_random_state(state: tuple[Any, Any]) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state_all(state[1])
